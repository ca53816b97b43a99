// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"crypto"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/internal/peercred"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/trust"
)

// learn puts a key set in force that names these keys, as its fleet would.
func (b *board) learn(keys map[trust.Role]crypto.Signer) {
	b.t.Helper()
	version := uint64(1)
	if old := b.set.Load(); old != nil {
		version = old.Version + 1
	} else {
		b.root = newKey(b.t)
	}
	s := &trust.KeySet{Version: version, Thresholds: map[trust.Role]int{trust.RoleRoot: 1}, Keys: []trust.Key{{Role: trust.RoleRoot, Public: b.root.Public()}}}
	for role, k := range keys {
		s.Thresholds[role] = 1
		s.Keys = append(s.Keys, trust.Key{Role: role, Public: k.Public()})
	}
	if err := s.Check(); err != nil {
		b.t.Fatal(err)
	}
	b.set.Store(s)
}

// asked gives a fresh challenge.
func (b *board) asked() onboard.Challenge {
	b.t.Helper()
	status, body := b.ask("POST", "/v1/challenge", "{}")
	var c onboard.Challenge
	if err := json.Unmarshal([]byte(body), &c); err != nil || status != 200 || c.Board != "dock-1" || c.Left != 120 {
		b.t.Fatalf("%d %s %v", status, body, err)
	}
	return c
}

// sign makes the envelope of a command over a challenge; change may spoil it.
func sign(t *testing.T, key crypto.Signer, c onboard.Challenge, typ trust.Type, change func(*command.Command)) string {
	t.Helper()
	id, err := command.ParseID(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	keyID, err := trust.KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	args, err := schema.Encode(map[string]any{"valve": "main", "percent": 0.0})
	if err != nil {
		t.Fatal(err)
	}
	cmd := command.Command{V: schema.Version, ID: id, Tenant: c.Tenant, Board: c.Board, Name: "set-valve-position", Args: args, Actor: KeyActor(keyID), Seq: 1, Reason: "leak"}
	if change != nil {
		change(&cmd)
	}
	payload, err := schema.Encode(&cmd)
	if err != nil {
		t.Fatal(err)
	}
	e, err := trust.NewEnvelope(typ, payload)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Sign(key); err != nil {
		t.Fatal(err)
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return `{"wait_s":20,"envelope":` + string(b) + `}`
}

// TestOperatorKey: a key of role operator gives a command whoever brings it, and its actor
// is the key.
func TestOperatorKey(t *testing.T) {
	t.Parallel()
	op := newKey(t)
	b := start(t, func(b *board) {
		b.learn(map[trust.Role]crypto.Signer{trust.RoleOperator: op})
		b.access = Access{} // nobody is an operator by user
	})
	if status, _ := b.ask("POST", "/v1/commands", closeValve); status != 403 {
		t.Fatalf("without the key: %d", status)
	}
	_, body := b.ask("POST", "/v1/signed", sign(t, op, b.asked(), trust.TypeOperator, nil))
	if s := lines(t, body); s[len(s)-1].State != "done" {
		t.Fatal(body)
	}
	id, _ := trust.KeyID(op.Public())
	if e := b.Recent(1)[0].Command; e.Actor != "key/"+id[:16] || e.Reason != "leak" {
		t.Errorf("%+v", e)
	}
	if _, n := b.position(); n != 1 {
		t.Errorf("moved %d times", n)
	}
	if !strings.Contains(b.log.String(), "brought_by="+me()) {
		t.Error("the log does not tell who brought it")
	}
}

// TestHostileEnvelopes: forged, replayed, readdressed, of another key, role, type or board,
// over a challenge that is used, old or another's. Nothing moves.
func TestHostileEnvelopes(t *testing.T) {
	t.Parallel()
	op, fleet, unknown := newKey(t), newKey(t), newKey(t)
	b := start(t, func(b *board) {
		b.learn(map[trust.Role]crypto.Signer{trust.RoleOperator: op, trust.RoleCommand: fleet})
	})
	other := start(t, func(b *board) { b.learn(map[trust.Role]crypto.Signer{trust.RoleOperator: op}) })
	otherID, _ := trust.KeyID(unknown.Public())
	forged := strings.Replace(sign(t, op, b.asked(), trust.TypeOperator, nil), `"sig":"`, `"sig":"AAAA`, 1)
	for what, c := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"a key that nobody knows":          {sign(t, unknown, b.asked(), trust.TypeOperator, nil), 403, onboard.NotSigned},
		"a key of the role command":        {sign(t, fleet, b.asked(), trust.TypeOperator, nil), 403, onboard.NotSigned},
		"another type":                     {sign(t, op, b.asked(), trust.TypeCommand, nil), 400, onboard.BadRequest},
		"a spoilt signature":               {forged, 403, onboard.NotSigned},
		"a challenge of another board":     {sign(t, op, other.asked(), trust.TypeOperator, nil), 403, onboard.Challenged},
		"no challenge":                     {sign(t, op, b.asked(), trust.TypeOperator, func(c *command.Command) { c.ID[0] ^= 1 }), 403, onboard.Challenged},
		"for another board":                {sign(t, op, b.asked(), trust.TypeOperator, func(c *command.Command) { c.Board = "dock-2" }), 403, command.CodeAddress},
		"for another tenant":               {sign(t, op, b.asked(), trust.TypeOperator, func(c *command.Command) { c.Tenant = "acme" }), 403, command.CodeAddress},
		"as another key":                   {sign(t, op, b.asked(), trust.TypeOperator, func(c *command.Command) { c.Actor = KeyActor(otherID) }), 403, onboard.NotSigned},
		"as the fleet":                     {sign(t, op, b.asked(), trust.TypeOperator, func(c *command.Command) { c.Actor = command.ActorFleet }), 403, onboard.NotSigned},
		"as root":                          {sign(t, op, b.asked(), trust.TypeOperator, func(c *command.Command) { c.Actor = "local/root" }), 403, onboard.NotSigned},
		"no envelope":                      {`{"envelope":"hello"}`, 400, onboard.BadRequest},
		"nothing":                          {`{}`, 400, onboard.BadRequest},
		"an envelope that is too large":    {`{"envelope":{"payload":"` + strings.Repeat("A", onboard.MaxBody) + `"}}`, 413, onboard.TooLarge},
		"more said beside the envelope":    {`{"actor":"local/root",` + sign(t, op, b.asked(), trust.TypeOperator, nil)[1:], 400, onboard.BadRequest},
		"an envelope with a field doubled": {strings.Replace(sign(t, op, b.asked(), trust.TypeOperator, nil), `"payloadType":`, `"payloadType":"x","payloadType":`, 1), 400, onboard.BadRequest},
	} {
		status, body := b.ask("POST", "/v1/signed", c.body)
		if p := problem(t, body); status != c.status || p.Code != c.code {
			t.Errorf("%s: %d %s, want %d %s", what, status, body, c.status, c.code)
		}
	}
	if _, n := b.position(); n != 0 {
		t.Fatalf("moved %d times", n)
	}
	// Once is once.
	env := sign(t, op, b.asked(), trust.TypeOperator, nil)
	for i, want := range []int{200, 403, 403} {
		if status, body := b.ask("POST", "/v1/signed", env); status != want {
			t.Errorf("time %d: %d %s", i+1, status, body)
		}
	}
	if _, n := b.position(); n != 1 {
		t.Errorf("moved %d times", n)
	}
	// A key that the next set leaves out is over at once.
	ch := b.asked()
	b.learn(map[trust.Role]crypto.Signer{trust.RoleCommand: fleet})
	if status, body := b.ask("POST", "/v1/signed", sign(t, op, ch, trust.TypeOperator, nil)); status != 403 || problem(t, body).Code != onboard.NotSigned {
		t.Errorf("a revoked key: %d %s", status, body)
	}
	if _, n := b.position(); n != 1 {
		t.Errorf("moved %d times", n)
	}
}

// TestChallengeTime: a challenge ends, and a start of the program forgets them all.
func TestChallengeTime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newChallenges()
	id, err := c.give(1, now)
	if err != nil {
		t.Fatal(err)
	}
	says := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	says(c.take(id, 2, now), "another user")
	says(c.take(id, 1, now.Add(challengeLife)), "older than")
	if err := c.take(id, 1, now.Add(challengeLife-1)); err != nil {
		t.Error(err)
	}
	says(c.take(id, 1, now), "it was used")
	says(newChallenges().take(id, 1, now), "has not given it")
}

// TestChallengeFlood: who asks for many pushes out nobody's but the own ones.
func TestChallengeFlood(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newChallenges()
	mine, err := c.give(1, now)
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		if _, err := c.give(2, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.list) != maxChallengeOf+1 {
		t.Errorf("%d are remembered", len(c.list))
	}
	full := error(nil)
	for uid := 3; full == nil && uid < 1000; uid++ {
		for range maxChallengeOf {
			_, full = c.give(uid, now)
		}
	}
	if full == nil || len(c.list) > maxChallenges {
		t.Errorf("%d are remembered, %v", len(c.list), full)
	}
	if err := c.take(mine, 1, now); err != nil {
		t.Error(err)
	}
	if _, err := c.give(1, now.Add(2*challengeLife)); err != nil || len(c.list) != 1 {
		t.Errorf("old ones stay: %d, %v", len(c.list), err)
	}
}

// FuzzRequests: whatever is sent, the answer is JSON within bounds, never a failure of the
// board, and nothing is done that was not asked for in full.
func FuzzRequests(f *testing.F) {
	for i := range 4 {
		f.Add(uint8(i), closeValve)
		f.Add(uint8(i), `{"value":{"a":[1,2.5,"x"]},"for_s":60}`)
		f.Add(uint8(i), `{"envelope":{"payload":"aGk=","payloadType":"x","signatures":[]}}`)
		f.Add(uint8(i), `{"reason":"`+strings.Repeat("é", 130)+`"}`)
		f.Add(uint8(i), `{"name":"set-valve-position","args":{"valve":"main","percent":1e400}}`)
	}
	targets := [][2]string{{"POST", "/v1/commands"}, {"PUT", "/v1/twin/keys/app.x"}, {"POST", "/v1/signed"}, {"POST", "/v1/commands/00000000000000000000000000000001/cancel"}}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		b := fuzzBoard(t)
		target := targets[int(which)%len(targets)]
		r := httptest.NewRequest(target[0], target[1], strings.NewReader(body))
		r = r.WithContext(contextOf(r, peercred.Peer{}))
		w := httptest.NewRecorder()
		b.routes().ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError || !json.Valid(firstLine(w.Body.Bytes())) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if target[1] == "/v1/signed" && w.Code == 200 {
			t.Fatal("taken without a signature")
		}
	})
}
