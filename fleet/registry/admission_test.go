// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/ca"
	"fulmar/fleet/store"
	"fulmar/schema"
)

// TestOldDatabase: a registry of the first schema opens, and its boards connect and
// renew as before.
func TestOldDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := store.OpenFile(filepath.Join(dir, "registry.db"), migrations()[:1])
	if err != nil {
		t.Fatal(err)
	}
	fp, key := [32]byte{1}, [32]byte{2}
	_, err = db.Write.Exec(`INSERT INTO board (tenant, name, key_mode, facts, key_hash, token_hash, serial, fingerprint, not_after, enrolled_at)
VALUES ('default', 'b1', 'software', '{"model":"x"}', ?, ?, '7', ?, ?, 5)`, key[:], []byte("t"), fp[:], time.Now().Add(time.Hour).UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := r.Boards(ctx, DefaultTenant)
	if err != nil || len(b) != 1 || b[0].Trust != schema.TrustSoftware || b[0].KeyHash != key || b[0].EKHash != nil || b[0].Facts["model"] != "x" {
		t.Fatalf("%+v %v", b, err)
	}
	id := ca.Identity{Tenant: DefaultTenant, Board: "b1", Fingerprint: fp}
	if ok, err := r.Admit(ctx, id); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, trust, err := r.Renew(ctx, id, [32]byte{9}, func(string) (*ca.Leaf, error) { return leafOf(9), nil }); err != nil || trust != schema.TrustSoftware {
		t.Fatal(trust, err)
	}
	if area, trust, err := r.AK(ctx, DefaultTenant, "b1"); len(area) != 0 || trust != schema.TrustSoftware || err != nil {
		t.Fatal(area, trust, err)
	}
}

// chip is what a board with TPM n and attestation key ak has proven.
func chip(n, ak byte) *TPM {
	return &TPM{EKHash: [32]byte{0xe, n}, AK: []byte{ak}, Kind: "discrete", Maker: "IFX", Firmware: "7.85"}
}

// claim is a board with a TPM and a key, which asks without a token.
func claim(board string, key, ek, ak byte) Enrolment {
	return Enrolment{Board: board, KeyMode: schema.KeyTPM, KeyHash: [32]byte{key}, TPM: chip(ek, ak), Trust: schema.TrustFirstUse, From: "192.0.2.1", Ask: true}
}

// soft is a board without one.
func soft(board string, key byte) Enrolment {
	return Enrolment{Board: board, KeyMode: schema.KeySoftware, KeyHash: [32]byte{key}, From: "192.0.2.1", Ask: true}
}

func with(e Enrolment, change func(*Enrolment)) Enrolment { change(&e); return e }

// serial makes each certificate another one.
type signer struct {
	mu sync.Mutex
	n  byte
}

func (s *signer) ask(r *Registry, e Enrolment) (byte, error) {
	var n byte
	_, _, err := r.Enrol(ctx, e, func(string) (*ca.Leaf, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.n++
		n = s.n
		l := leafOf(n)
		l.KeyHash = e.KeyHash
		return l, nil
	})
	return n, err
}

func waits(t *testing.T, err error) *Waiting {
	t.Helper()
	var w *Waiting
	if !errors.As(err, &w) {
		t.Fatalf("does not wait for a person: %v", err)
	}
	return w
}

func pending(t *testing.T, r *Registry) []Request {
	t.Helper()
	p, err := r.Pending(ctx, DefaultTenant)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestApproval: a board that nobody knows waits, comes in by a person's word with
// exactly what it asked with, and needs none again.
func TestApproval(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var s signer
	for range 3 {
		_, err := s.ask(r, claim("b1", 1, 1, 1))
		waits(t, err)
	}
	_, err := s.ask(r, soft("b2", 2))
	waits(t, err)
	p := pending(t, r)
	if len(p) != 2 || p[0].Board != "b1" || p[0].Asked != 3 || p[0].Why != ReasonNew || p[0].Trust != schema.TrustFirstUse || p[0].TPMKind != "discrete" ||
		p[0].Fingerprint() != "0e01000000000000" || p[0].From != "192.0.2.1" || p[1].Fingerprint() != "0200000000000000" || p[1].Trust != schema.TrustSoftware {
		t.Fatalf("%+v", p)
	}
	if err := r.Approve(ctx, DefaultTenant, p[0].ID, "admin"); err != nil {
		t.Fatal(err)
	}
	if err := r.Refuse(ctx, DefaultTenant, p[1].ID, "admin"); err != nil {
		t.Fatal(err)
	}
	if err := r.Approve(ctx, DefaultTenant, 999, "admin"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	for _, other := range []Enrolment{claim("b1", 9, 1, 1), claim("b1", 1, 9, 1), claim("b1", 1, 1, 9), claim("b9", 1, 1, 1), soft("b1", 1)} {
		_, err := s.ask(r, other)
		waits(t, err)
	}
	if _, err := s.ask(r, claim("b1", 1, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask(r, claim("b1", 1, 1, 1)); err != nil {
		t.Fatalf("an enrolled board asks again: %v", err)
	}
	if _, err := s.ask(r, soft("b2", 2)); !errors.Is(err, ErrRefused) {
		t.Fatal(err)
	}
	if err := r.Approve(ctx, DefaultTenant, p[1].ID, "admin"); err != nil { // a person may think again
		t.Fatal(err)
	}
	if _, err := s.ask(r, soft("b2", 2)); err != nil {
		t.Fatal(err)
	}
	area, trust, err := r.AK(ctx, DefaultTenant, "b1")
	if !bytes.Equal(area, []byte{1}) || trust != schema.TrustFirstUse || err != nil {
		t.Fatal(area, trust, err)
	}
	b, err := r.Boards(ctx, DefaultTenant)
	if err != nil || len(b) != 2 || b[0].TPMMaker != "IFX" || b[0].Fingerprint() != "0e01000000000000" || b[0].NotAfter.IsZero() {
		t.Fatalf("%+v %v", b, err)
	}
}

// TestOrder holds the order of admission: what comes first decides.
func TestOrder(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var s signer
	listed := func(e *Enrolment) { e.Listed, e.Ask = true, false }
	chained := func(e *Enrolment) { e.Chained, e.Ask = true, false }
	silent := func(e *Enrolment) { e.Ask = false }
	in := func(what string, e Enrolment) {
		t.Helper()
		if _, err := s.ask(r, e); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	out := func(what string, e Enrolment, want error) {
		t.Helper()
		_, err := s.ask(r, e)
		if w := (*Waiting)(nil); want == nil && !errors.As(err, &w) || want != nil && !errors.Is(err, want) {
			t.Fatalf("%s: %v, wants %v", what, err, want)
		}
	}
	tok := func(board string, uses int) func(*Enrolment) {
		secret := newToken(t, r, board, uses)
		return func(e *Enrolment) { e.Secret = secret }
	}
	in("by the list", with(claim("b1", 1, 1, 1), listed))
	in("by its maker", with(claim("b2", 2, 2, 2), chained))
	any1 := tok("", 1)
	in("by a token", with(claim("b3", 3, 3, 3), any1))
	out("a used token", with(claim("b4", 4, 4, 4), any1), ErrUnknown)
	out("a used token with the list off", with(with(claim("b4", 4, 4, 4), any1), silent), ErrUnknown)
	in("a used token, but the list", with(with(claim("b4", 4, 4, 4), any1), listed))
	out("no token, nobody to ask", with(claim("b5", 5, 5, 5), silent), ErrUnknown)

	in("the same TPM, a new key in it", claim("b1", 11, 1, 1))
	for why, e := range map[Reason]Enrolment{
		ReasonAK: claim("b1", 1, 1, 9), ReasonEK: claim("b1", 1, 9, 1), ReasonToSoftware: soft("b1", 40), ReasonElsewhere: claim("b8", 8, 1, 1),
	} {
		out(string(why), e, nil)
		out(string(why)+" on the list", with(e, func(e *Enrolment) { e.Listed = true }), nil)
		out(string(why)+" with a token for any board", with(e, tok("", 1)), nil)
		out(string(why)+" with a used token", with(e, any1), nil)
		found := false
		for _, q := range pending(t, r) {
			found = found || q.Why == why && q.Board == e.Board && strings.HasSuffix(q.Say, ".")
		}
		if !found {
			t.Errorf("%s: not in the list", why)
		}
	}
	in("a token for this very board", with(claim("b1", 12, 1, 7), tok("b1", 1)))
	out("the TPM of b1 with a token for b8", with(claim("b8", 8, 1, 1), tok("b8", 1)), nil)
	in("software", with(soft("s1", 60), tok("", 1)))
	in("software, the same key", soft("s1", 60))
	out("software, another key", soft("s1", 61), nil)
	out("software, now a TPM", claim("s1", 60, 6, 6), nil)
	out("software, the key under another name", soft("s2", 60), nil)
	for _, q := range pending(t, r) {
		if q.Why == ReasonElsewhere {
			if err := r.Approve(ctx, DefaultTenant, q.ID, "admin"); !errors.Is(err, ErrElsewhere) {
				t.Errorf("a second name for one board is approved: %v", err)
			}
		}
	}
}

// TestRevoked: a revoked board does not come back by its TPM, its key, another name,
// a list or an old token, only by what a person does after.
func TestRevoked(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var s signer
	if _, err := s.ask(r, with(claim("b1", 1, 1, 1), func(e *Enrolment) { e.Secret = newToken(t, r, "", 1) })); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask(r, with(soft("s1", 2), func(e *Enrolment) { e.Secret = newToken(t, r, "", 1) })); err != nil {
		t.Fatal(err)
	}
	old, many := newToken(t, r, "b1", 1), newToken(t, r, "", 9)
	_, mark, err := r.Shut(ctx, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"b1", "s1"} {
		if err := r.Revoke(ctx, DefaultTenant, b, "admin", "stolen"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Revoke(ctx, DefaultTenant, "b1", "admin", ""); !errors.Is(err, ErrUnknown) {
		t.Error("revoked twice:", err)
	}
	shut, next, err := r.Shut(ctx, mark)
	if err != nil || len(shut) != 2 || shut[0] != (ca.Identity{Tenant: DefaultTenant, Board: "b1"}) || next <= mark {
		t.Fatal(shut, next, err)
	}
	if shut, _, err := r.Shut(ctx, next); err != nil || len(shut) != 0 {
		t.Fatal(shut, err)
	}
	if _, _, err := r.AK(ctx, DefaultTenant, "b1"); !errors.Is(err, ErrUnknown) {
		t.Error("the attestation key of a revoked board is good:", err)
	}
	for name, e := range map[string]Enrolment{
		"as before": claim("b1", 1, 1, 1), "new keys": claim("b1", 3, 1, 3), "another name": claim("b2", 1, 1, 1), "another TPM": claim("b1", 5, 5, 5),
		"old token": with(claim("b1", 1, 1, 1), func(e *Enrolment) { e.Secret = old }), "token": with(claim("b2", 1, 1, 1), func(e *Enrolment) { e.Secret = many }),
		"list": with(claim("b2", 1, 1, 1), func(e *Enrolment) { e.Listed, e.Chained = true, true }),
		"key":  soft("s1", 2), "key, another name": with(soft("s2", 2), func(e *Enrolment) { e.Secret = many }),
	} {
		if _, err := s.ask(r, e); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(pending(t, r)) != 0 {
		t.Error("a revoked board waits for an approval")
	}
	if _, _, err := r.Renew(ctx, ca.Identity{Tenant: DefaultTenant, Board: "b1", Fingerprint: [32]byte{1}}, [32]byte{1}, func(string) (*ca.Leaf, error) { return leafOf(99), nil }); !errors.Is(err, ErrRevoked) {
		t.Error("renewed:", err)
	}
	if _, err := s.ask(r, with(claim("b1", 1, 1, 1), func(e *Enrolment) { e.Secret = newToken(t, r, "b1", 1) })); err != nil {
		t.Errorf("a token for this very board, made after: %v", err)
	}
	if err := r.Forget(ctx, DefaultTenant, "s1", "admin", ""); err != nil {
		t.Fatal(err)
	}
	_, err = s.ask(r, soft("s1", 2))
	waits(t, err)
	if err := r.Forget(ctx, DefaultTenant, "nobody", "admin", ""); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// TestRenewInTPM: the key of a board with a TPM stays the one that was proven.
func TestRenewInTPM(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var s signer
	n, err := s.ask(r, with(claim("b1", 1, 1, 1), func(e *Enrolment) { e.Secret = newToken(t, r, "", 1) }))
	if err != nil {
		t.Fatal(err)
	}
	id := ca.Identity{Tenant: DefaultTenant, Board: "b1", Fingerprint: [32]byte{n}}
	for key, want := range map[byte]error{2: ErrOtherKey, 1: nil} {
		_, _, err := r.Renew(ctx, id, [32]byte{key}, func(trust string) (*ca.Leaf, error) {
			if trust != schema.TrustFirstUse {
				t.Errorf("trust %s", trust)
			}
			return leafOf(50), nil
		})
		if !errors.Is(err, want) {
			t.Errorf("key %d: %v", key, err)
		}
	}
}

// TestSameBoardManyTimes: whoever replays a board's request cannot take away the
// certificate that the board uses.
func TestSameBoardManyTimes(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var s signer
	n, err := s.ask(r, with(soft("b1", 1), func(e *Enrolment) { e.Secret = newToken(t, r, "", 1) }))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.ask(r, soft("b1", 1)); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := r.Admit(ctx, ca.Identity{Tenant: DefaultTenant, Board: "b1", Fingerprint: [32]byte{n}}); !ok || err != nil {
		t.Error("the certificate in use is not good any more", err)
	}
}

// TestRequestsAreBounded, by address and altogether, and go after a day.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var s signer
	fill := func(from string, n int) (in int, err error) {
		for i := range n {
			e := soft(fmt.Sprint("b", i), 1)
			e.KeyHash = [32]byte{1, byte(i), byte(i >> 8), byte(len(from)), from[0]}
			e.From = from
			if _, err = s.ask(r, e); errors.Is(err, ErrTooMany) {
				return in, err
			}
			in++
		}
		return in, nil
	}
	if n, err := fill("192.0.2.1", maxFrom+1); n != maxFrom || err == nil {
		t.Fatal(n, err)
	}
	if _, err := r.db.Write.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
INSERT INTO request (tenant, board, key_mode, key_hash, ek_hash, ak, trust, tpm_kind, tpm_maker, tpm_firmware, ek_note, facts, why, other, remote, first, last, asked)
SELECT 'default', 'x' || i, '', zeroblob(32), '', '', '', '', '', '', '', '{}', 'new', '', 'x' || i, 1, ?, 1 FROM n`, maxRequests-maxFrom, nowMs()); err != nil {
		t.Fatal(err)
	}
	if n, err := fill("2001:db8::1", 1); n != 0 || err == nil {
		t.Fatal(n, err)
	}
	if _, err := s.ask(r, with(soft("t1", 99), func(e *Enrolment) { e.Secret = newToken(t, r, "", 1) })); err != nil {
		t.Errorf("a token while the list is full: %v", err)
	}
	if _, err := r.db.Write.Exec(`UPDATE request SET last = ?`, nowMs()-requestLife.Milliseconds()-1); err != nil {
		t.Fatal(err)
	}
	if n, err := fill("2001:db8::1", 1); n != 1 || err != nil || len(pending(t, r)) != 1 {
		t.Fatal(n, err)
	}
}

// TestDecisionsGrowOld: an approval that nobody came for is none after a day.
func TestDecisionsGrowOld(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var s signer
	_, err := s.ask(r, soft("b1", 1))
	if err := r.Approve(ctx, DefaultTenant, waits(t, err).ID, "admin"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.db.Write.Exec(`UPDATE request SET decided_at = ?`, nowMs()-requestLife.Milliseconds()-1); err != nil {
		t.Fatal(err)
	}
	_, err = s.ask(r, soft("b1", 1))
	waits(t, err)
}

// TestAudited: each act has its row, in its own transaction, and the chain holds.
func TestAudited(t *testing.T) {
	t.Parallel()
	r, _ := open(t)
	var s signer
	_, err := s.ask(r, claim("b1", 1, 1, 1))
	id := waits(t, err).ID
	if err := errors.Join(r.Refuse(ctx, DefaultTenant, id, "admin"), r.Approve(ctx, DefaultTenant, id, "token 7f")); err != nil {
		t.Fatal(err)
	}
	for range 3 { // the second and third change nothing
		if _, err := s.ask(r, claim("b1", 1, 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	secret := newToken(t, r, "b1", 1)
	if _, err := s.ask(r, with(claim("b1", 2, 2, 2), func(e *Enrolment) { e.Secret = secret })); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Revoke(ctx, DefaultTenant, "b1", "admin", "stolen"), r.Forget(ctx, DefaultTenant, "b1", "admin", "sold")); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = r.Audit().Each(ctx, 0, func(e audit.Entry) error {
		got = append(got, e.Who+" "+e.What)
		if strings.Contains(fmt.Sprint(e), secret) {
			t.Error("a secret is in the audit log")
		}
		return nil
	})
	want := []string{"board b1 ask", "admin refuse", "token 7f approve", "board b1 enrol", "server token", "board b1 re-enrol", "admin revoke", "admin forget"}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v\n%v\nwants\n%v", err, got, want)
	}
	if _, _, err := r.Audit().Verify(ctx, audit.Head{}); err != nil {
		t.Error(err)
	}
	if _, err := r.db.Write.Exec("DROP TABLE audit"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask(r, soft("b9", 9)); err == nil || len(pending(t, r)) != 0 {
		t.Errorf("an act without its row: %v", err)
	}
}
