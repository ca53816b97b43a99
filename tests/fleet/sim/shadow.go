// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"fulmar/schema"
	"fulmar/trust"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// shadow is a simulated board's twin: the real logic, kept in memory.
type shadow struct {
	keys  *trust.KeySet // nil until the fleet has sent it
	board *twin.Board
}

func (s *shadow) keysVersion() uint64 {
	if s.keys == nil {
		return 0
	}
	return s.keys.Version
}

// open gives what an envelope of a type signs, where the fleet's key did.
func (s *shadow) open(t trust.Type, envelope []byte) ([]byte, error) {
	if s.keys == nil {
		return nil, errors.New("no key set came yet")
	}
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	return s.keys.Verify(e, t, 0)
}

// learn begins the twin of this start. What the fleet wants comes with the first
// connection.
func (b *board) learn() {
	b.jobs = newObedience()
	var err error
	b.twin.board, err = twin.NewBoard(twin.BoardConfig{
		Tenant: b.id.Tenant, Board: b.name, Instance: twin.InstanceOf('b', uint32(time.Now().Unix()), rand.Uint32()),
		Open:  func(e []byte) ([]byte, error) { return b.twin.open(trust.TypeTwin, e) },
		Check: check,
	}, nil)
	if err != nil {
		panic(err) // nothing saved that could be wrong
	}
	b.reports(map[string]any{
		"commands": commandNames(), "config.log.level": "info", "output.main": valve(0), "safety": map[string]any{"active": false},
		"config.sample.fast.period": "1s",
	})
}

// check refuses what no board takes.
func check(key string, v twin.Value) error {
	a, err := v.Any()
	if err != nil {
		return err
	}
	if level, ok := a.(string); key == "log.level" && (!ok || !slices.Contains([]string{"debug", "info", "warn", "error"}, level)) {
		return fmt.Errorf("log.level: %v, wants debug, info, warn or error", a)
	}
	return nil
}

// reports puts what the board is into its twin.
func (b *board) reports(is map[string]any) {
	values := map[string]twin.Value{}
	for k, v := range is {
		value, err := twin.ValueOf(v)
		if err != nil {
			panic(err) // of our own making
		}
		values[k] = value
	}
	if err := b.twin.board.Report(values); err != nil {
		b.f.cfg.Log.Error("a simulated board's twin is too large", "board", b.name, "err", err)
	}
}

// shows begins the twin's part of a connection.
func (b *board) shows() { b.speak(b.twin.board.Hello(b.conns), 0) }

// speak sends a word of the twin; became: with it all of a version is said, 0: not.
func (b *board) speak(u *wire.Up, became uint64) {
	if u == nil || b.line == nil {
		return
	}
	raw, err := schema.Encode(u)
	if err != nil {
		b.f.cfg.Log.Error("a simulated twin's word is none", "board", b.name, "err", err)
		return
	}
	b.fly(&flight{became: became}, schema.ChanTwinUp, raw)
}

// told takes what the fleet says on any of its channels.
func (b *board) told(topic string, payload []byte) {
	t, err := schema.ParseTopic(topic)
	if err != nil {
		return
	}
	switch t.Channel {
	case schema.ChanHelloAck:
		b.answered(payload)
	case schema.ChanKeys:
		b.trusts(payload)
	case schema.ChanTwinDown:
		b.becomes(payload)
	case schema.ChanCommand:
		b.ordered(payload)
	}
}

// trusts takes a key set: the first one from the fleet that the certificate names, then
// only successors.
func (b *board) trusts(payload []byte) {
	e, err := trust.ParseEnvelope(payload)
	if err != nil {
		return
	}
	next := b.twin.keys
	if next == nil {
		next, err = trust.OpenKeySet(e, sha256.Sum256(e.Unverified()))
	} else {
		next, err = next.Next(e)
	}
	if err == nil {
		b.twin.keys = next
	}
}

// becomes takes a word of the fleet about the twin.
func (b *board) becomes(payload []byte) {
	var d wire.Down
	if err := schema.Decode(payload, &d); err != nil {
		return
	}
	was := map[string]string{}
	for _, k := range b.twin.board.Keys() {
		v, _ := b.twin.board.Effective(k)
		was[k] = string(v)
	}
	answer, err := b.twin.board.Receive(&d)
	if err != nil {
		b.f.cfg.Log.Debug("a simulated board does not take all of its twin", "board", b.name, "err", err)
	}
	b.twin.board.Confirm(len(b.twin.board.Events()))
	b.speak(answer, 0)
	is := map[string]any{}
	for _, k := range b.twin.board.Keys() {
		v, _ := b.twin.board.Effective(k)
		if was[k] != string(v) {
			is["config."+k], _ = v.Any()
		}
		delete(was, k)
	}
	if len(is) == 0 && len(was) == 0 {
		return
	}
	_, refused := b.twin.board.Version()
	why := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(refused)) {
		why[k] = refused[k]
	}
	is["twin.refused"] = why
	b.reports(is)
	version, _ := b.twin.board.Version()
	b.speak(b.twin.board.Pending(), version)
}
