// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/registry"
	"fulmar/schema"
	"fulmar/schema/rest"
	"fulmar/twin"
	"fulmar/twin/wire"
)

const tenant = registry.DefaultTenant

// sign stands in for the keyring: what a signature is worth is for package trust's tests.
func sign(statement []byte) ([]byte, error) {
	m := hmac.New(sha256.New, []byte("key of the test"))
	m.Write(statement)
	return append(m.Sum(nil), statement...), nil
}

func unsign(envelope []byte) ([]byte, error) {
	if len(envelope) < sha256.Size {
		return nil, errors.New("too short")
	}
	if again, _ := sign(envelope[sha256.Size:]); !hmac.Equal(again, envelope) {
		return nil, errors.New("not signed")
	}
	return envelope[sha256.Size:], nil
}

func ann() access.Caller {
	return access.Caller{Tenant: tenant, Who: "ann", Author: "ann", Rights: rest.Admin.Rights()}
}

// air is the gateway: it brings messages, as bytes, to boards that are connected.
type air struct {
	mu     sync.Mutex
	boards map[string]*board
	deaf   bool // messages to boards are lost, and nobody is told
}

func (a *air) SendTwin(_, name string, d *wire.Down) error {
	a.mu.Lock()
	b, deaf := a.boards[name], a.deaf
	a.mu.Unlock()
	if b == nil {
		return ErrAway
	}
	if !deaf {
		b.hears(d)
	}
	return nil
}

// board is a real board's side with a connection, in the manner of the agent: one
// goroutine, one message at a time.
type board struct {
	t    testing.TB
	name string
	side *twin.Board
	conn uint64
	air  *air
	to   *Twins
	down chan []byte
	ctx  context.Context
	stop context.CancelFunc
	over chan struct{}

	mu   sync.Mutex // of side
	turn sync.Mutex // of making a message and sending it: they keep their order
}

func policyOf(key string) twin.Policy {
	p, err := twin.ParsePolicy(key[len("app."):])
	if err != nil {
		return twin.PolicyFleet
	}
	return p
}

func newSide(t testing.TB, name string, saved []byte) *twin.Board {
	t.Helper()
	b, err := twin.NewBoard(twin.BoardConfig{
		Tenant: tenant, Board: name, Instance: twin.InstanceOf('b', rand.Uint32(), rand.Uint32()), Open: unsign, Policy: policyOf,
		Check: func(key string, _ twin.Value) error {
			if key == "app.never" {
				return errors.New("this board has nothing of the kind")
			}
			return nil
		},
	}, saved)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (a *air) add(t testing.TB, x *Twins, name string) *board {
	t.Helper()
	b := &board{t: t, name: name, side: newSide(t, name, nil), air: a, to: x}
	if err := b.side.Report(map[string]twin.Value{"config.log.level": value(t, "info"), "commands": value(t, []any{"restart"})}); err != nil {
		t.Fatal(err)
	}
	return b
}

func value(t testing.TB, v any) twin.Value {
	t.Helper()
	b, err := twin.ValueOf(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// connect says hello, and hears until the connection is cut.
func (b *board) connect(conn uint64) {
	b.conn = conn
	b.down, b.over = make(chan []byte, 16), make(chan struct{})
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.t.Cleanup(b.stop)
	b.air.mu.Lock()
	b.air.boards[b.name] = b
	b.air.mu.Unlock()
	go b.run()
}

func (b *board) cut() {
	b.air.mu.Lock()
	if b.air.boards[b.name] == b {
		delete(b.air.boards, b.name)
	}
	b.air.mu.Unlock()
	b.stop()
	<-b.over
}

func (b *board) hears(d *wire.Down) {
	m, err := schema.Encode(d)
	if err != nil {
		b.t.Error(err)
		return
	}
	select {
	case b.down <- m:
	case <-b.ctx.Done():
	}
}

func (b *board) run() {
	defer close(b.over)
	b.turn.Lock()
	b.mu.Lock()
	u := b.side.Hello(b.conn)
	b.mu.Unlock()
	b.say(u)
	b.turn.Unlock()
	for {
		select {
		case <-b.ctx.Done():
			return
		case m := <-b.down:
			var d wire.Down
			if err := schema.Decode(m, &d); err != nil {
				b.t.Error(err)
				return
			}
			b.turn.Lock()
			b.mu.Lock()
			u, err := b.side.Receive(&d)
			b.mu.Unlock()
			if err != nil && !errors.Is(err, twin.ErrStale) {
				b.t.Errorf("%s: %v", b.name, err)
			}
			b.say(u)
			b.turn.Unlock()
		}
	}
}

// say sends a message, and puts the answer where the connection brings it.
func (b *board) say(u *wire.Up) {
	if u == nil {
		return
	}
	m, err := schema.Encode(u)
	if err != nil {
		b.t.Error(err)
		return
	}
	var got wire.Up
	if err := schema.Decode(m, &got); err != nil {
		b.t.Error(err)
		return
	}
	d, err := b.to.Up(b.ctx, tenant, b.name, got)
	if err != nil {
		if b.ctx.Err() == nil && !errors.Is(err, ErrStopped) {
			b.t.Errorf("%s: %v", b.name, err)
		}
		return
	}
	if d != nil {
		_ = b.air.SendTwin(tenant, b.name, d) // of a board that has gone
	}
}

// pending says what has changed on the board.
func (b *board) pending() {
	b.turn.Lock()
	defer b.turn.Unlock()
	b.mu.Lock()
	u := b.side.Pending()
	b.mu.Unlock()
	b.say(u)
}

func (b *board) set(key string, v any) {
	b.mu.Lock()
	err := b.side.Set(key, twin.Edit{Value: value(b.t, v), Author: "local/bob", Reason: "here"})
	b.mu.Unlock()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *board) effective(key string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, _ := b.side.Effective(key)
	if v == nil {
		return ""
	}
	a, _ := v.Any()
	return fmt.Sprint(a)
}

// place is a registry with twins that are written.
type place struct {
	*Twins
	reg *registry.Registry
	air *air
	end func()
}

func open(t testing.TB, dir string) *place {
	t.Helper()
	return openOn(t, dir, &air{boards: map[string]*board{}})
}

func openOn(t testing.TB, dir string, a *air) *place {
	t.Helper()
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := &place{reg: reg, air: a}
	p.Twins = New(Config{Rows: reg.Twins(), Sign: sign, Open: unsign, Courier: a, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- p.Run(ctx) }()
	p.end = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		if err := reg.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.end)
	return p
}

func (p *place) patch(t testing.TB, name string, set ...any) rest.Twin {
	t.Helper()
	tw, err := p.Patch(t.Context(), ann(), name, patchOf(set...), -1)
	if err != nil {
		t.Fatal(err)
	}
	return tw
}

func patchOf(set ...any) rest.TwinPatch {
	p := rest.TwinPatch{Set: map[string]json.RawMessage{}, Reason: "why not"}
	for i := 0; i < len(set); i += 2 {
		p.Set[set[i].(string)], _ = json.Marshal(set[i+1])
	}
	return p
}

func (p *place) twin(t testing.TB, name string) rest.Twin {
	t.Helper()
	tw, err := p.Twin(t.Context(), tenant, name)
	if err != nil {
		t.Fatal(err)
	}
	return tw
}

// until waits for something that another goroutine does, at most as long as a slow
// machine needs.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (p *place) kinds(t testing.TB, name string) (out []string) {
	t.Helper()
	list, err := p.History(t.Context(), tenant, name, 0, 200)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		e := &list[len(list)-1-i]
		out = append(out, e.Kind+" "+e.Key)
	}
	return out
}
