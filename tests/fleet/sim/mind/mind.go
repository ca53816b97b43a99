// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package mind is what a simulated board can be told: a twin by the real logic with the
// real signatures, kept in memory, and commands obeyed by a small stand-in, so that they
// are seen to move.
package mind

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

// Word is something that a board says.
type Word struct {
	Channel schema.Channel
	Payload []byte
	// Became is the version of the twin of which the last word is in it; 0: none.
	Became uint64
}

// Config says whose mind it is.
type Config struct {
	Tenant, Board string
	Clock         func(time.Time) schema.Time
	// Feels gives readings for who asks for them.
	Feels func() map[string]any
}

// Mind is one board's. Not safe for concurrent use.
type Mind struct {
	cfg  Config
	keys *trust.KeySet // nil until the fleet has sent it
	twin *twin.Board
	jobs obedience
	said []Word
}

// New makes the mind of a board that starts. What the fleet wants comes with the first
// connection.
func New(cfg Config) *Mind {
	m := &Mind{cfg: cfg, jobs: newObedience()}
	var err error
	m.twin, err = twin.NewBoard(twin.BoardConfig{
		Tenant: cfg.Tenant, Board: cfg.Board, Instance: twin.InstanceOf('b', uint32(time.Now().Unix()), rand.Uint32()),
		Open:  func(e []byte) ([]byte, error) { return m.open(trust.TypeTwin, e) },
		Check: check,
	}, nil)
	if err != nil {
		panic(err) // nothing saved that could be wrong
	}
	m.reports(map[string]any{
		"commands": commandNames(), "config.log.level": "info", "output.main": valve(0), "safety": map[string]any{"active": false},
		"config.sample.fast.period": "1s",
	})
	return m
}

// Keys is the version of the key set that the board goes by; 0 for none.
func (m *Mind) Keys() uint64 {
	if m.keys == nil {
		return 0
	}
	return m.keys.Version
}

// Filters are what the board hears beside the rest, after its own prefix.
func Filters() []string {
	return []string{string(schema.ChanTwinDown), string(schema.ChanCommand) + "+", string(schema.ChanKeys)}
}

// Connected begins a connection and gives what is said in it first.
func (m *Mind) Connected(conn uint64) []Word {
	m.speak(m.twin.Hello(conn))
	return m.take()
}

// Told takes what the fleet says and gives the answers.
func (m *Mind) Told(t schema.Topic, payload []byte) []Word {
	switch t.Channel {
	case schema.ChanKeys:
		m.trusts(payload)
	case schema.ChanTwinDown:
		m.becomes(payload)
	case schema.ChanCommand:
		m.ordered(payload)
	}
	return m.take()
}

// Pass lets time go by; up tells whether somebody listens.
func (m *Mind) Pass(now time.Time, up bool) []Word {
	m.works(now)
	if up {
		m.speak(m.twin.Pending())
	} else {
		m.said = nil // the fleet asks again
	}
	return m.take()
}

func (m *Mind) take() []Word {
	out := m.said
	m.said = nil
	return out
}

// say encodes what is of our own making.
func (m *Mind) say(c schema.Channel, v any) {
	raw, err := schema.Encode(v)
	if err != nil {
		panic(err)
	}
	m.said = append(m.said, Word{Channel: c, Payload: raw})
}

func (m *Mind) speak(u *wire.Up) {
	if u != nil {
		m.say(schema.ChanTwinUp, u)
	}
}

// open gives what an envelope of a type signs, where the fleet's key did.
func (m *Mind) open(t trust.Type, envelope []byte) ([]byte, error) {
	if m.keys == nil {
		return nil, errors.New("no key set came yet")
	}
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	return m.keys.Verify(e, t, 0)
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
func (m *Mind) reports(is map[string]any) {
	values := map[string]twin.Value{}
	for k, v := range is {
		value, err := twin.ValueOf(v)
		if err != nil {
			panic(err) // of our own making
		}
		values[k] = value
	}
	if err := m.twin.Report(values); err != nil {
		panic(err)
	}
}

// trusts takes a key set: the first one from the fleet that the certificate names, then
// only successors.
func (m *Mind) trusts(payload []byte) {
	e, err := trust.ParseEnvelope(payload)
	if err != nil {
		return
	}
	next := m.keys
	if next == nil {
		next, err = trust.OpenKeySet(e, sha256.Sum256(e.Unverified()))
	} else {
		next, err = next.Next(e)
	}
	if err == nil {
		m.keys = next
	}
}

// becomes takes a word of the fleet about the twin.
func (m *Mind) becomes(payload []byte) {
	var d wire.Down
	if err := schema.Decode(payload, &d); err != nil {
		return
	}
	was := map[string]string{}
	for _, k := range m.twin.Keys() {
		v, _ := m.twin.Effective(k)
		was[k] = string(v)
	}
	answer, _ := m.twin.Receive(&d) // what is not taken is asked for again, or refused by name
	m.twin.Confirm(len(m.twin.Events()))
	m.speak(answer)
	is := map[string]any{}
	for _, k := range m.twin.Keys() {
		v, _ := m.twin.Effective(k)
		if was[k] != string(v) {
			is["config."+k], _ = v.Any()
		}
		delete(was, k)
	}
	if len(is) == 0 && len(was) == 0 {
		return
	}
	_, refused := m.twin.Version()
	why := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(refused)) {
		why[k] = refused[k]
	}
	is["twin.refused"] = why
	m.reports(is)
	if u := m.twin.Pending(); u != nil {
		m.speak(u)
		m.said[len(m.said)-1].Became, _ = m.twin.Version()
	}
}
