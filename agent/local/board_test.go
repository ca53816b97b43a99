// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/internal/peercred"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/storage/journal"
	"fulmar/trust"
	"fulmar/twin"
)

// board is a real dispatcher on a real journal with a valve, the real twin, and a server
// in front of them.
type board struct {
	*Server
	t     *testing.T
	d     *command.Dispatcher
	path  string
	log   *syncBuffer
	clock schema.Clock

	mu       sync.Mutex
	seq      uint64
	valve    float64
	moved    int
	given    []Entry
	watchers map[chan command.Result]bool
	access   Access

	twinMu  sync.Mutex
	twin    *twin.Board
	history []onboard.Change

	set  atomic.Pointer[trust.KeySet]
	root crypto.Signer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// me is the user of this process as the server names it.
func me() string { return system{}.name(os.Geteuid()) }

func fresh(t *testing.T) *board {
	t.Helper()
	dir, err := os.MkdirTemp("", "l") // short: names of sockets are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &board{
		t: t, path: filepath.Join(dir, onboard.Socket), log: new(syncBuffer), clock: schema.NewClock(1, 0),
		watchers: map[chan command.Result]bool{}, access: Access{Operators: []string{fmt.Sprint(os.Geteuid())}},
	}
	j, entries, err := journal.Open(filepath.Join(dir, "commands.journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	log := slog.New(slog.NewTextHandler(b.log, nil))
	b.d, err = command.New(command.Config{
		Tenant: "default", Board: "dock-1", Clock: b.clock, Now: func() (uint64, bool) { return 0, false },
		Log: j, Entries: entries, Tell: b.tell, Slog: log, Handlers: b.handlers(),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.twin, err = twin.NewBoard(twin.BoardConfig{Tenant: "default", Board: "dock-1", Instance: twin.InstanceOf('b', 1, 2), Check: func(key string, _ twin.Value) error {
		if key == "log.level" {
			return fmt.Errorf("this board has no levels")
		}
		return nil
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Server = New(Config{
		Path: b.path, Log: log, State: b, Name: func() (string, string) { return "default", "dock-1" },
		Access: func() Access {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.access
		},
		Commands: func() Commands { return b }, Twin: func() Twin { return twinOf{b} }, Keys: func() Keys { return b },
	})
	return b
}

// start runs dispatcher and server until the end of the test.
func start(t *testing.T, change func(*board)) *board {
	t.Helper()
	b := fresh(t)
	if change != nil {
		change(b)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.d.Run(ctx) })
	l, err := listen(b.path)
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := b.serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return b
}

func (b *board) handlers() []command.Handler {
	return []command.Handler{
		{Name: "set-valve-position", Repeat: true, Check: func(args []byte) error {
			var a struct {
				Percent float64 `cbor:"percent"`
			}
			if err := schema.Decode(args, &a); err != nil || a.Percent > 100 {
				return &command.Error{Code: "out-of-range", Text: "percent is over 100"}
			}
			return nil
		}, Do: func(_ context.Context, c command.Call) ([]byte, error) {
			var a struct {
				Valve   string  `cbor:"valve"`
				Percent float64 `cbor:"percent"`
			}
			if err := schema.Decode(c.Args, &a); err != nil {
				return nil, err
			}
			c.Progress(50, "half way")
			b.mu.Lock()
			defer b.mu.Unlock()
			b.valve, b.moved = a.Percent, b.moved+1
			return schema.Encode(map[string]any{"percent": a.Percent})
		}},
		{Name: "talk", Repeat: true, Lane: command.Long, Do: func(ctx context.Context, c command.Call) ([]byte, error) {
			text := string(bytes.Repeat([]byte("a"), schema.MaxText))
			for i := 0; ctx.Err() == nil; i++ {
				c.Progress(i%100, text)
				time.Sleep(100 * time.Microsecond)
			}
			return nil, ctx.Err()
		}},
	}
}

// tell is where results go: here to those who watch.
func (b *board) tell(_ context.Context, r command.Result) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.IndexFunc(b.given, func(e Entry) bool { return e.Result.ID == r.ID }); i >= 0 {
		b.given[i].Result, b.given[i].Told = r, r.State.Final()
	}
	for w := range b.watchers {
		select {
		case w <- r:
		default:
		}
	}
	return nil
}

func (b *board) State(context.Context) onboard.State {
	return onboard.State{Board: "dock-1", Tenant: "default", Link: onboard.Link{State: "waiting"}, Outputs: []onboard.Output{}, Rules: []onboard.Rule{}, Causes: []string{}}
}

func (b *board) Kinds() []onboard.Kind {
	return []onboard.Kind{
		{Name: "set-valve-position", Lane: "normal", Effect: "moves a valve", Args: []onboard.Arg{
			{Name: "valve", Type: onboard.TypeText, Required: true}, {Name: "percent", Type: onboard.TypeNumber, Required: true, Max: 200, Unit: "%"},
		}},
		{Name: "talk", Lane: "long", Effect: "talks"},
	}
}

func (b *board) Give(ctx context.Context, o Order) (command.Result, error) {
	b.mu.Lock()
	b.seq++
	c := command.Command{V: schema.Version, ID: o.ID, Tenant: "default", Board: "dock-1", Name: o.Name, Args: o.Args, Actor: o.Actor, Seq: b.seq, DryRun: o.DryRun, Reason: o.Reason}
	b.given = append(b.given, Entry{Report: command.Report{V: schema.Version, Result: command.Result{ID: o.ID, State: command.Accepted}, Command: &c, Given: b.clock.Now()}})
	b.mu.Unlock()
	return b.d.SubmitLocal(ctx, c)
}

func (b *board) Wait(ctx context.Context, id command.ID) (command.Result, error) {
	return b.d.Wait(ctx, id)
}

func (b *board) Cancel(ctx context.Context, id command.ID, by string) (command.Result, error) {
	return b.d.Cancel(ctx, id, by)
}

func (b *board) Watch(ctx context.Context) <-chan command.Result {
	w := make(chan command.Result, 16)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watchers[w] = true
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.watchers, w)
		close(w)
	})
	return w
}

func (b *board) Recent(n int) []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := slices.Clone(b.given)
	slices.Reverse(out)
	return out[:min(n, len(out))]
}

func (b *board) Known(id command.ID) (Entry, bool) {
	for _, e := range b.Recent(1 << 20) {
		if e.Result.ID == id {
			return e, true
		}
	}
	return Entry{}, false
}

func (b *board) position() (float64, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.valve, b.moved
}

// Operator is the board's key set at work.
func (b *board) Operator(envelope []byte) ([]byte, string, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, "", err
	}
	set := b.set.Load()
	payload, err := set.Verify(e, trust.TypeOperator, 0)
	if err != nil {
		return nil, "", err
	}
	for _, k := range set.Keys {
		if k.Role == trust.RoleOperator && e.SignedBy(k.Public) {
			id, err := trust.KeyID(k.Public)
			return payload, id, err
		}
	}
	return nil, "", trust.ErrSignatures
}

// twinOf is the board's twin with a lock.
type twinOf struct{ *board }

func (t twinOf) Keys() (out []onboard.Key) {
	t.twinMu.Lock()
	defer t.twinMu.Unlock()
	for _, k := range t.twin.Keys() {
		v, from := t.twin.Effective(k)
		o := onboard.Key{Key: k, Value: onboard.JSON(v)}
		if o.From = "fleet"; from == twin.FromOverride {
			o.From = "board"
		}
		out = append(out, o)
	}
	return out
}

func (t twinOf) Set(_ context.Context, key string, e twin.Edit) error {
	t.twinMu.Lock()
	defer t.twinMu.Unlock()
	t.history = append(t.history, onboard.Change{Kind: "set", Key: key, Value: onboard.JSON(e.Value), Author: e.Author, Reason: e.Reason})
	return t.twin.Set(key, e)
}

func (t twinOf) Clear(_ context.Context, key, _, _ string) (bool, error) {
	t.twinMu.Lock()
	defer t.twinMu.Unlock()
	return t.twin.Clear(key), nil
}

func (t twinOf) Conflicts() []twin.Conflict {
	t.twinMu.Lock()
	defer t.twinMu.Unlock()
	return t.twin.Conflicts()
}

func (t twinOf) History(int) []onboard.Change {
	t.twinMu.Lock()
	defer t.twinMu.Unlock()
	return slices.Clone(t.history)
}

// client asks at the socket, with a connection for each request.
func client(path string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}

// ask gives the status and the body of an answer.
func (b *board) ask(method, path, body string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://board"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := client(b.path).Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// lines are the steps of an answer that waited.
func lines(t *testing.T, body string) (out []onboard.Step) {
	t.Helper()
	sc := bufio.NewScanner(bytes.NewReader([]byte(body)))
	for sc.Scan() {
		var s onboard.Step
		if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		out = append(out, s)
	}
	return out
}

// problem is the body of a refusal.
func problem(t *testing.T, body string) onboard.Problem {
	t.Helper()
	var p onboard.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return p
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fuzzBoard is a server whose commands are never begun: each is refused as the dispatcher
// does not run.
func fuzzBoard(t *testing.T) *board {
	b := fresh(t)
	b.access = Access{Operators: []string{"0"}}
	b.root = newKey(t)
	b.set.Store(&trust.KeySet{Version: 1, Thresholds: map[trust.Role]int{trust.RoleRoot: 1}, Keys: []trust.Key{{Role: trust.RoleRoot, Public: b.root.Public()}}})
	b.cfg.Commands = func() Commands { return still{b} }
	return b
}

// still takes commands and does none.
type still struct{ *board }

func (still) Give(_ context.Context, o Order) (command.Result, error) {
	return command.Result{V: schema.Version, ID: o.ID, State: command.Refused, Code: "test"}, nil
}

func (still) Cancel(context.Context, command.ID, string) (command.Result, error) {
	return command.Result{}, command.ErrNotKnown
}

func contextOf(r *http.Request, p peercred.Peer) context.Context {
	return context.WithValue(r.Context(), connKey{}, p)
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}
