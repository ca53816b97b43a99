// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/command"
	"fulmar/command/dispatch"
	"fulmar/schema"
	"fulmar/trust"
)

// give hands bytes over as the link does and waits until they were looked at.
func (st *station) give(e []byte) {
	st.s.Give(e)
	synctest.Wait()
	time.Sleep(time.Second)
}

const heater = `{"output":"heater","value":7}`

// TestHostile: nothing that is not a command of this fleet to this board, now and for the
// first time, has an effect.
func TestHostile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		st.connect()
		f, other := st.f, newFleet(t)
		id, good := f.order(t, "set-output", heater)
		st.give(good)
		st.ends(id, command.Done, "")
		if st.bank.count() != 1 {
			t.Fatal("what is good has no effect")
		}
		late := func(c *command.Command) { c.Expires = c.Issued }
		order := func(change ...func(*command.Command)) []byte {
			_, e := f.order(t, "set-output", heater, change...)
			return e
		}
		resigned := func(typ trust.Type, role trust.Role, f *fleet) []byte {
			c := &command.Command{V: 1, ID: command.ID{9}, Tenant: "t", Board: "b", Name: "set-output", Actor: command.ActorFleet, Seq: 1 << 40, Args: arguments(t, heater), Expires: uint64(time.Now().UnixMilli()) + 60_000}
			return sign(t, typ, c, f.keys[role])
		}
		var parts map[string]any
		if err := json.Unmarshal(order(), &parts); err != nil {
			t.Fatal(err)
		}
		changed := func(from, to string) []byte { // what is signed, changed behind the signature
			text, _ := parts["payload"].(string)
			p, err := base64.StdEncoding.DecodeString(text)
			if err != nil || !bytes.Contains(p, []byte(from)) {
				t.Fatal(err)
			}
			b, err := json.Marshal(map[string]any{"payload": bytes.Replace(p, []byte(from), []byte(to), 1), "payloadType": parts["payloadType"], "signatures": parts["signatures"]})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		before := len(st.s.kinds)
		for what, e := range map[string][]byte{
			"nothing":                         {},
			"junk":                            []byte("{\"payload\": 7}"),
			"forged: another output":          changed("heater", "inlet\x00"),
			"forged: another board":           changed("\x61b", "\x61c"),
			"signed by nobody":                unsigned(t, parts),
			"another fleet's key":             resigned(trust.TypeCommand, trust.RoleCommand, other),
			"a key of another role":           resigned(trust.TypeCommand, trust.RoleTime, f),
			"the root key":                    resigned(trust.TypeCommand, trust.RoleRoot, f),
			"an operator's key":               resigned(trust.TypeCommand, trust.RoleOperator, f),
			"an operator's command":           resigned(trust.TypeOperator, trust.RoleOperator, f),
			"a twin section as a command":     resigned(trust.TypeTwin, trust.RoleCommand, f),
			"replayed":                        good,
			"replayed number":                 order(func(c *command.Command) { c.Seq = 1 }),
			"expired":                         order(late),
			"re-addressed board":              order(func(c *command.Command) { c.Board = "b2" }),
			"re-addressed tenant":             order(func(c *command.Command) { c.Tenant = "t2" }),
			"for an actor of the board's own": order(func(c *command.Command) { c.Actor = "rule/overheat"; c.Seq = 1 << 50 }),
			"oversized":                       bytes.Repeat([]byte(" "), trust.MaxEnvelope+1),
			"signed, with too long arguments": oversized(t, f),
			"signed junk":                     junk(t, f),
		} {
			st.give(e)
			if n := st.bank.count(); n != 1 {
				t.Fatalf("%s: had an effect", what)
			}
		}
		if len(st.s.kinds) != before {
			t.Error("the board's commands changed")
		}
		// And the next good one is done: nothing of that used up its number.
		id, e := f.order(t, "set-output", heater)
		st.give(e)
		st.ends(id, command.Done, "")
		if got := st.s.Stats(); got.Forged != 12 {
			t.Errorf("%+v", got)
		}
	})
}

func unsigned(t testing.TB, parts map[string]any) []byte {
	b, err := json.Marshal(map[string]any{"payload": parts["payload"], "payloadType": parts["payloadType"], "signatures": []any{}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func oversized(t testing.TB, f *fleet) []byte {
	type command struct { // without its checks
		V       uint8    `cbor:"1,keyasint"`
		ID      [16]byte `cbor:"2,keyasint"`
		Tenant  string   `cbor:"3,keyasint"`
		Board   string   `cbor:"4,keyasint"`
		Name    string   `cbor:"5,keyasint"`
		Args    []byte   `cbor:"6,keyasint"`
		Actor   string   `cbor:"7,keyasint"`
		Seq     uint64   `cbor:"8,keyasint"`
		Expires uint64   `cbor:"10,keyasint"`
	}
	p, err := schema.Encode(&command{1, [16]byte{1}, "t", "b", "set-output", make([]byte, 5000), "fleet", 1 << 41, 1 << 50})
	if err != nil {
		t.Fatal(err)
	}
	return envelope(t, f, p)
}

func junk(t testing.TB, f *fleet) []byte { return envelope(t, f, []byte("no command at all")) }

func envelope(t testing.TB, f *fleet, p []byte) []byte {
	e, err := trust.NewEnvelope(trust.TypeCommand, p)
	if err == nil {
		err = e.Sign(f.keys[trust.RoleCommand])
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTimeUnknown: a board that does not know the fleet's time waits, and does nothing
// that was too old when it learns it.
func TestTimeUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		st.unknown = true
		old, e := st.f.order(t, "set-output", heater)
		st.give(e)
		fresh, e := st.f.order(t, "set-output", heater, func(c *command.Command) { c.Expires += 1e9 })
		st.give(e)
		time.Sleep(2 * time.Minute)
		if st.bank.count() != 0 {
			t.Error("done though nobody knows whether it is too old")
		}
		st.mu.Lock()
		st.unknown = false
		st.mu.Unlock()
		st.ends(old, command.Expired, command.CodeLate)
		st.ends(fresh, command.Done, "")
		if st.bank.count() != 1 {
			t.Errorf("%d effects", st.bank.count())
		}
	})
}

// TestFlood: ten thousand forged envelopes and ten thousand signed commands do not keep a
// person from the valve, and use bounded room.
func TestFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		st.connect()
		st.bank.slow = 100 * time.Millisecond
		other := newFleet(t)
		_, forged := other.order(t, "set-output", heater)
		for range 10_000 {
			st.s.Give(forged)
		}
		id, r := st.local("local/eve", "set-valve-position", `{"valve":"inlet","percent":1}`)
		if r.State != command.Accepted {
			t.Errorf("%+v", r)
		}
		st.ends(id, command.Done, "")
		synctest.Wait()
		if s := st.s.Stats(); s.Forged+s.Dropped != 10_000 || s.Forged < maxArrived {
			t.Errorf("%+v", s)
		}
		var last command.ID
		for k := range 10_000 {
			var e []byte
			last, e = st.f.order(t, "set-output", heater, func(c *command.Command) { c.Expires += 1e9 })
			if k%250 == 249 { // the others are dropped, and the fleet would give them again
				synctest.Wait()
			}
			st.s.Give(e)
		}
		id, r = st.local("local/eve", "trigger-safety-shutdown", "")
		begin := time.Now()
		if r.State != command.Accepted {
			t.Errorf("%+v", r)
		}
		st.ends(id, command.Done, "")
		if d := time.Since(begin); d > 10*time.Millisecond {
			t.Errorf("the shutdown waited %v", d)
		}
		time.Sleep(time.Minute)
		if r, err := st.s.Wait(context.Background(), last); err != nil || r.State != command.Refused || r.Code != command.CodeQueueFull {
			t.Errorf("the last of the flood: %+v, %v", r, err)
		}
		info, err := os.Stat(filepath.Join(st.dir, JournalName))
		if err != nil || info.Size() > 4<<20 {
			t.Errorf("journal %v, %v", info.Size(), err)
		}
		list, err := st.s.List(context.Background(), 1<<20)
		if err != nil || len(list) > 400 {
			t.Errorf("%d commands are remembered, %v", len(list), err)
		}
	})
}

// TestOldDisk: a disk of last week put back. What was done since then is not known to it,
// so the same bytes are done again, but only as long as they are valid, and not once the
// fleet gave a higher number. Old numbers of the fleet, as after a restored fleet, are
// answered as replayed.
func TestOldDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		_, first := st.f.order(t, "set-output", heater)
		st.give(first)
		st.stop()
		disk, err := os.ReadFile(filepath.Join(st.dir, JournalName))
		if err != nil {
			t.Fatal(err)
		}
		restore := func() {
			st.stop()
			if err := os.WriteFile(filepath.Join(st.dir, JournalName), disk, 0o600); err != nil {
				t.Fatal(err)
			}
			st.start()
		}
		st.start()
		_, a := st.f.order(t, "set-output", heater)
		_, b := st.f.order(t, "set-output", heater)
		st.give(a)
		st.give(b)
		if st.bank.count() != 3 {
			t.Fatalf("%d effects", st.bank.count())
		}
		restore()
		st.give(first) // known to the old disk
		if st.bank.count() != 3 {
			t.Error("what the disk knew was done again")
		}
		st.give(a) // still valid, and the disk cannot know: this is what is not guaranteed
		if st.bank.count() != 4 {
			t.Errorf("%d effects: the text of docs/commands.md is not true any more", st.bank.count())
		}
		restore()
		_, c := st.f.order(t, "set-output", heater)
		st.give(c) // the fleet's next number
		st.give(a)
		st.give(b)
		if st.bank.count() != 5 {
			t.Errorf("%d effects: an old number was taken after a higher one", st.bank.count())
		}
		restore()
		time.Sleep(2 * time.Minute)
		st.give(a)
		st.give(b)
		st.give(c)
		if st.bank.count() != 5 {
			t.Errorf("%d effects: what expired was done", st.bank.count())
		}
		st.connect()
		st.f.seq = 0 // a fleet from its backup
		id, e := st.f.order(t, "set-output", heater)
		st.give(e)
		if r := st.reports(id); len(r) != 1 || r[0].Result.Code != command.CodeReplayed || !strings.Contains(r[0].Result.Text, "came already") {
			t.Errorf("the fleet hears %+v", r)
		}
	})
}

// TestTwoBoards: two boards with one identity both do what reaches both, each once. Only
// the key in the TPM and the fleet's one connection to a name keep that from being.
func TestTwoBoards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := newStation(t), newStation(t)
		two.stop()
		two.f = one.f
		two.start()
		id, e := one.f.order(t, "set-output", heater)
		for range 2 {
			one.give(e)
			two.give(e)
		}
		one.ends(id, command.Done, "")
		two.ends(id, command.Done, "")
		if one.bank.count() != 1 || two.bank.count() != 1 {
			t.Errorf("%d and %d effects", one.bank.count(), two.bank.count())
		}
	})
}

// TestOperator: a key of the role operator gives commands over a challenge, once.
func TestOperator(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		key := st.f.keys[trust.RoleOperator]
		keyID, err := trust.KeyID(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		challenge := func() command.ID {
			id, err := st.s.Challenge()
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		ask := func(id command.ID, change func(*command.Command)) *command.Command {
			c := &command.Command{V: 1, ID: id, Tenant: "t", Board: "b", Name: "set-output", Actor: "key/" + keyID[:16], Seq: 1, Args: arguments(t, heater)}
			if change != nil {
				change(c)
			}
			return c
		}
		good := sign(t, trust.TypeOperator, ask(challenge(), nil), key)
		r, err := st.s.Operator(context.Background(), good)
		if err != nil || r.State != command.Accepted {
			t.Fatalf("%+v, %v", r, err)
		}
		st.ends(r.ID, command.Done, "")
		old := challenge()
		time.Sleep(challengeLife)
		for what, e := range map[string][]byte{
			"twice":                good,
			"a made-up challenge":  sign(t, trust.TypeOperator, ask(command.ID{1, 2, 3}, nil), key),
			"an old challenge":     sign(t, trust.TypeOperator, ask(old, nil), key),
			"another key's actor":  sign(t, trust.TypeOperator, ask(challenge(), func(c *command.Command) { c.Actor = "key/0123456789abcdef" }), key),
			"a person's actor":     sign(t, trust.TypeOperator, ask(challenge(), func(c *command.Command) { c.Actor = "local/eve" }), key),
			"another board":        sign(t, trust.TypeOperator, ask(challenge(), func(c *command.Command) { c.Board = "b2" }), key),
			"another tenant":       sign(t, trust.TypeOperator, ask(challenge(), func(c *command.Command) { c.Tenant = "t2" }), key),
			"arguments that wrong": sign(t, trust.TypeOperator, ask(challenge(), func(c *command.Command) { c.Args = nil }), key),
		} {
			if r, err := st.s.Operator(context.Background(), e); err != nil || r.State != command.Refused {
				t.Errorf("%s: %+v, %v", what, r, err)
			}
		}
		for what, e := range map[string][]byte{
			"the fleet's key":  sign(t, trust.TypeOperator, ask(challenge(), nil), st.f.keys[trust.RoleCommand]),
			"the wrong type":   sign(t, trust.TypeCommand, ask(challenge(), nil), key),
			"another's key":    sign(t, trust.TypeOperator, ask(challenge(), nil), newFleet(t).keys[trust.RoleOperator]),
			"nothing":          nil,
			"a fleet's order ": good[:len(good)/2],
		} {
			if r, err := st.s.Operator(context.Background(), e); !errors.Is(err, dispatch.ErrNotSigned) {
				t.Errorf("%s: %+v, %v", what, r, err)
			}
		}
		if st.bank.count() != 1 {
			t.Errorf("%d effects", st.bank.count())
		}
		first := challenge()
		for range 2 * maxChallenges {
			challenge()
		}
		if len(st.s.challenges) > maxChallenges {
			t.Errorf("%d challenges are open", len(st.s.challenges))
		}
		if r, err := st.s.Operator(context.Background(), sign(t, trust.TypeOperator, ask(first, nil), key)); err != nil || r.State != command.Refused {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
