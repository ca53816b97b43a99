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

// learn brings the board the next key set of its fleet, with these keys.
func (b *board) learn(keys map[trust.Role]crypto.Signer) {
	b.t.Helper()
	if len(b.roots) == 0 {
		b.roots = append(b.roots, newKey(b.t))
	}
	b.version++
	s := &trust.KeySet{Version: b.version, Thresholds: map[trust.Role]int{trust.RoleRoot: 1}, Keys: []trust.Key{{Role: trust.RoleRoot, Public: b.roots[0].Public()}}}
	for role, k := range keys {
		s.Thresholds[role] = 1
		s.Keys = append(s.Keys, trust.Key{Role: role, Public: k.Public()})
	}
	payload, err := s.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	e, err := trust.NewEnvelope(trust.TypeKeySet, payload)
	if err == nil {
		err = e.Sign(b.roots[0])
	}
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := e.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	if changed, err := b.keys.Learn(text); err != nil || !changed {
		b.t.Fatal(changed, err)
	}
}

// keyActor is the actor of what a key signs.
func keyActor(t *testing.T, key crypto.Signer) string {
	t.Helper()
	id, err := trust.KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return "key/" + id[:16]
}

// challenged gives a fresh challenge.
func (b *board) challenged() onboard.Challenge {
	b.t.Helper()
	status, body := b.ask("POST", "/v1/challenge", "{}")
	var c onboard.Challenge
	if err := json.Unmarshal([]byte(body), &c); err != nil || status != 200 || c.Board != "dock-1" || c.Left != 60 {
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
	args, err := schema.Encode(map[string]any{"valve": "main", "percent": 0.0})
	if err != nil {
		t.Fatal(err)
	}
	cmd := command.Command{V: schema.Version, ID: id, Tenant: c.Tenant, Board: c.Board, Name: "set-valve", Args: args, Actor: keyActor(t, key), Seq: 1, Reason: "leak"}
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
	_, body := b.ask("POST", "/v1/signed", sign(t, op, b.challenged(), trust.TypeOperator, nil))
	if s := lines(t, body); s[len(s)-1].State != "done" {
		t.Fatal(body)
	}
	if e := b.last().Command; e.Actor != keyActor(t, op) || e.Reason != "leak" {
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
		start, n := time.Now(), time.Duration(0)
		b.now = func() time.Time { n++; return start.Add(n * challengeLife) } // as many challenges as one wants
	})
	other := start(t, func(b *board) { b.learn(map[trust.Role]crypto.Signer{trust.RoleOperator: op}) })
	forged := strings.Replace(sign(t, op, b.challenged(), trust.TypeOperator, nil), `"sig":"`, `"sig":"AAAA`, 1)
	for what, c := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"a key that nobody knows":          {sign(t, unknown, b.challenged(), trust.TypeOperator, nil), 403, onboard.NotSigned},
		"a key of the role command":        {sign(t, fleet, b.challenged(), trust.TypeOperator, nil), 403, onboard.NotSigned},
		"another type":                     {sign(t, op, b.challenged(), trust.TypeCommand, nil), 400, onboard.BadRequest},
		"a spoilt signature":               {forged, 403, onboard.NotSigned},
		"a challenge of another board":     {sign(t, op, other.challenged(), trust.TypeOperator, nil), 403, onboard.Challenged},
		"no challenge":                     {sign(t, op, b.challenged(), trust.TypeOperator, func(c *command.Command) { c.ID[0] ^= 1 }), 403, onboard.Challenged},
		"for another board":                {sign(t, op, b.challenged(), trust.TypeOperator, func(c *command.Command) { c.Board = "dock-2" }), 403, onboard.NotSigned},
		"for another tenant":               {sign(t, op, b.challenged(), trust.TypeOperator, func(c *command.Command) { c.Tenant = "acme" }), 403, onboard.NotSigned},
		"as another key":                   {sign(t, op, b.challenged(), trust.TypeOperator, func(c *command.Command) { c.Actor = keyActor(t, unknown) }), 403, onboard.NotSigned},
		"as the fleet":                     {sign(t, op, b.challenged(), trust.TypeOperator, func(c *command.Command) { c.Actor = command.ActorFleet }), 403, onboard.NotSigned},
		"as root":                          {sign(t, op, b.challenged(), trust.TypeOperator, func(c *command.Command) { c.Actor = "local/root" }), 403, onboard.NotSigned},
		"no envelope":                      {`{"envelope":"hello"}`, 400, onboard.BadRequest},
		"nothing":                          {`{}`, 400, onboard.BadRequest},
		"an envelope that is too large":    {`{"envelope":{"payload":"` + strings.Repeat("A", onboard.MaxBody) + `"}}`, 413, onboard.TooLarge},
		"more said beside the envelope":    {`{"actor":"local/root",` + sign(t, op, b.challenged(), trust.TypeOperator, nil)[1:], 400, onboard.BadRequest},
		"an envelope with a field doubled": {strings.Replace(sign(t, op, b.challenged(), trust.TypeOperator, nil), `"payloadType":`, `"payloadType":"x","payloadType":`, 1), 400, onboard.BadRequest},
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
	env := sign(t, op, b.challenged(), trust.TypeOperator, nil)
	for i, want := range []int{200, 403, 403} {
		if status, body := b.ask("POST", "/v1/signed", env); status != want {
			t.Errorf("time %d: %d %s", i+1, status, body)
		}
	}
	if _, n := b.position(); n != 1 {
		t.Errorf("moved %d times", n)
	}
	// A key that the next set leaves out is over at once.
	ch := b.challenged()
	b.learn(map[trust.Role]crypto.Signer{trust.RoleCommand: fleet})
	if status, body := b.ask("POST", "/v1/signed", sign(t, op, ch, trust.TypeOperator, nil)); status != 403 || problem(t, body).Code != onboard.NotSigned {
		t.Errorf("a revoked key: %d %s", status, body)
	}
	if _, n := b.position(); n != 1 {
		t.Errorf("moved %d times", n)
	}
}

// TestChallengeFlood: nobody gets more than some, so that nobody pushes out another's.
func TestChallengeFlood(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := &asked{of: map[int][]time.Time{}}
	got := 0
	for range 10_000 {
		if a.more(2, now) {
			got++
		}
	}
	if got != maxChallenges || !a.more(1, now) {
		t.Errorf("one user got %d", got)
	}
	if !a.more(2, now.Add(challengeLife)) || len(a.of) != 1 {
		t.Errorf("a minute later: %v", a.of)
	}
	op := newKey(t)
	b := start(t, func(b *board) { b.learn(map[trust.Role]crypto.Signer{trust.RoleOperator: op}) })
	for range 2 * maxChallenges { // those that are used do not count
		if status, body := b.ask("POST", "/v1/signed", sign(t, op, b.challenged(), trust.TypeOperator, nil)); status != 200 {
			t.Fatal(status, body)
		}
	}
	for i := range maxChallenges + 2 {
		status, body := b.ask("POST", "/v1/challenge", "{}")
		if i < maxChallenges && status != 200 || i >= maxChallenges && (status != 503 || problem(t, body).Code != onboard.TooMany) {
			t.Errorf("challenge %d: %d %s", i+1, status, body)
		}
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
		f.Add(uint8(i), `{"name":"set-valve","args":{"valve":"main","percent":1e400}}`)
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
