// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// ring is a fleet's keys: three roots of which two must sign, and one or two of other
// roles.
type ring struct {
	root               []crypto.Signer
	release, next, dir crypto.Signer
	set                *KeySet
}

func newRing(t testing.TB) *ring {
	t.Helper()
	r := &ring{root: []crypto.Signer{newEd(t), newP256(t), newEd(t)}, release: newP256(t), next: newEd(t), dir: newP256(t)}
	r.set = &KeySet{
		Version: 1, Thresholds: map[Role]int{RoleRoot: 2, RoleRelease: 1, RoleDirector: 1},
		Keys: []Key{
			{Role: RoleRelease, Public: r.release.Public(), Until: 5},
			{Role: RoleRelease, Public: r.next.Public(), From: 4},
			{Role: RoleDirector, Public: r.dir.Public()},
		},
	}
	for _, k := range r.root {
		r.set.Keys = append(r.set.Keys, Key{Role: RoleRoot, Public: k.Public()})
	}
	return r
}

func signedSet(t testing.TB, s *KeySet, keys ...crypto.Signer) *Envelope {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return sealed(t, TypeKeySet, string(b), keys...)
}

func opened(t testing.TB, e *Envelope) *KeySet {
	t.Helper()
	s, err := OpenKeySet(e, sha256.Sum256(e.payload))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRolesAndEpochs(t *testing.T) {
	t.Parallel()
	r := newRing(t)
	s := opened(t, signedSet(t, r.set, r.root[0], r.root[1]))
	for _, c := range []struct {
		name  string
		typ   Type
		want  Type
		epoch uint64
		keys  []crypto.Signer
		err   error
	}{
		{"release", TypeRelease, TypeRelease, 0, []crypto.Signer{r.release}, nil},
		{"release at its last epoch", TypeRelease, TypeRelease, 4, []crypto.Signer{r.release}, nil},
		{"release after its end", TypeRelease, TypeRelease, 5, []crypto.Signer{r.release}, ErrSignatures},
		{"next release before its time", TypeRelease, TypeRelease, 3, []crypto.Signer{r.next}, ErrSignatures},
		{"next release", TypeRelease, TypeRelease, 4, []crypto.Signer{r.next}, nil},
		{"director signs a release", TypeRelease, TypeRelease, 0, []crypto.Signer{r.dir}, ErrSignatures},
		{"root signs a release", TypeRelease, TypeRelease, 0, r.root, ErrSignatures},
		{"a release shown as an assignment", TypeRelease, TypeAssignment, 0, []crypto.Signer{r.release}, ErrMalformed},
		{"assignment signed by the release key", TypeAssignment, TypeAssignment, 0, []crypto.Signer{r.release}, ErrSignatures},
		{"assignment", TypeAssignment, TypeAssignment, 9, []crypto.Signer{r.release, r.dir}, nil},
		{"a role without keys", TypeAuditHead, TypeAuditHead, 0, []crypto.Signer{r.dir, r.release}, ErrSignatures},
		{"an unknown type", "text/plain", "text/plain", 0, []crypto.Signer{r.release}, ErrMalformed},
		{"nobody", TypeRelease, TypeRelease, 0, nil, ErrSignatures},
	} {
		b, err := s.Verify(sealed(t, c.typ, "payload", c.keys...), c.want, c.epoch)
		if !errors.Is(err, c.err) || (err == nil) != (string(b) == "payload") {
			t.Errorf("%s: %q %v, wants %v", c.name, b, err, c.err)
		}
	}
	// One key's signature twice is one signature.
	s.Thresholds[RoleRelease] = 2
	e := sealed(t, TypeRelease, "payload", r.release)
	e.Signatures = append(e.Signatures, e.Signatures[0])
	if _, err := s.Verify(e, TypeRelease, 0); !errors.Is(err, ErrSignatures) {
		t.Errorf("one key twice: %v", err)
	}
	for _, typ := range []Type{TypeKeySet, TypeRelease, TypeAssignment, TypeFreshness, TypeTime, TypePCRs, TypeCommand, TypeAuditHead} {
		if !slices.Contains(Roles(), typ.Role()) {
			t.Errorf("type %s belongs to no role", typ)
		}
	}
}

func TestOpenKeySet(t *testing.T) {
	t.Parallel()
	r := newRing(t)
	good := signedSet(t, r.set, r.root[0], r.root[2])
	pin := sha256.Sum256(good.payload)
	if s, err := OpenKeySet(good, pin); err != nil || s.Pin() != pin || s.Version != 1 || len(s.Keys) != 6 {
		t.Fatal(s, err)
	}
	if _, err := OpenKeySet(good, [32]byte{}); !errors.Is(err, ErrSignatures) {
		t.Errorf("another pin: %v", err)
	}
	if _, err := OpenKeySet(signedSet(t, r.set, r.root[0], r.release), pin); !errors.Is(err, ErrSignatures) {
		t.Errorf("one root key of two: %v", err)
	}
	if _, err := OpenKeySet(sealed(t, TypeRelease, string(good.payload), r.root...), pin); !errors.Is(err, ErrMalformed) {
		t.Errorf("of another type: %v", err)
	}
}

func TestKeySetRefuses(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*ring){
		"version 0":            func(r *ring) { r.set.Version = 0 },
		"threshold over keys":  func(r *ring) { r.set.Thresholds[RoleRoot] = 4 },
		"threshold 0":          func(r *ring) { r.set.Thresholds[RoleRoot] = 0 },
		"threshold below 0":    func(r *ring) { r.set.Thresholds[RoleDirector] = -1 },
		"threshold of nobody":  func(r *ring) { r.set.Thresholds[RoleAudit] = 1 },
		"unknown role":         func(r *ring) { r.set.Keys[0].Role = "king"; r.set.Thresholds["king"] = 1 },
		"key twice":            func(r *ring) { r.set.Keys[1].Public = r.set.Keys[0].Public },
		"key in two roles":     func(r *ring) { r.set.Keys[2].Public = r.root[0].Public() },
		"never good":           func(r *ring) { r.set.Keys[0].From = 5 },
		"root key with epochs": func(r *ring) { r.set.Keys[3].From = 1 },
		"no root":              func(r *ring) { r.set.Keys = r.set.Keys[:3]; delete(r.set.Thresholds, RoleRoot) },
		"another kind of key":  func(r *ring) { r.set.Keys[0].Public = "key" },
		"nine roots": func(r *ring) {
			for range 6 {
				r.set.Keys = append(r.set.Keys, Key{Role: RoleRoot, Public: newEd(t).Public()})
			}
		},
		"65 keys": func(r *ring) {
			for range 59 {
				r.set.Keys = append(r.set.Keys, Key{Role: RoleRelease, Public: newEd(t).Public()})
			}
		},
	} {
		r := newRing(t)
		spoil(r)
		if err := r.set.Check(); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrKeyKind) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := r.set.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	r := newRing(t)
	good, err := r.set.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"form 2":        bytes.Replace(good, []byte("{\"v\":1"), []byte("{\"v\":2"), 1),
		"unknown field": bytes.Replace(good, []byte("{\"v\":1"), []byte("{\"x\":1,\"v\":1"), 1),
		"role twice":    bytes.Replace(good, []byte("\"director\":1"), []byte("\"director\":1,\"director\":1"), 1),
		"broken key":    bytes.Replace(good, []byte("\"key\":\"MF"), []byte("\"key\":\"MG"), 1),
		"cut":           good[:len(good)-1],
		"long":          append(slices.Clone(good), make([]byte, MaxKeySet)...),
	} {
		if _, err := parseKeySet(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseKeySet(good); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	r := newRing(t)
	first := opened(t, signedSet(t, r.set, r.root...))
	// Root key 0 goes, another comes.
	fresh := newEd(t)
	next := &KeySet{Version: 2, Thresholds: first.Thresholds, Keys: slices.Clone(r.set.Keys)}
	next.Keys[3].Public = fresh.Public()
	second, err := first.Next(signedSet(t, next, r.root[1], r.root[2]))
	if err != nil || second.Version != 2 {
		t.Fatal(err)
	}
	if again, err := second.Next(signedSet(t, next, r.root[1], fresh)); err != nil || again != second {
		t.Errorf("the set in force, given again: %v", err)
	}
	if _, err := second.Next(signedSet(t, r.set, r.root[1], r.root[2])); !errors.Is(err, ErrRollback) {
		t.Errorf("back to the first: %v", err)
	}
	fork := *next
	fork.Keys = fork.Keys[1:]
	if _, err := second.Next(signedSet(t, &fork, r.root[1], r.root[2])); !errors.Is(err, ErrRollback) {
		t.Errorf("other contents under the same version: %v", err)
	}
	third := &KeySet{Version: 3, Thresholds: first.Thresholds, Keys: next.Keys}
	if _, err := second.Next(signedSet(t, third, r.root[0], r.root[1])); !errors.Is(err, ErrSignatures) {
		t.Errorf("by a root key that has gone: %v", err)
	}
	if _, err := second.Next(sealed(t, TypeRelease, "x", r.root...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("of another type: %v", err)
	}
}

// TestRotationRule compares Next with the rule, written down once more: a higher
// version, enough of the old root keys and enough of the new ones. Sets and signers
// are drawn at random.
func TestRotationRule(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	pool := make([]crypto.Signer, 8)
	for i := range pool {
		pool[i] = newEd(t)
	}
	some := func(n int) []int { return rnd.Perm(len(pool))[:n] }
	set := func(version uint64, roots []int, threshold int) *KeySet {
		s := &KeySet{Version: version, Thresholds: map[Role]int{RoleRoot: threshold}}
		for _, i := range roots {
			s.Keys = append(s.Keys, Key{Role: RoleRoot, Public: pool[i].Public()})
		}
		return s
	}
	common := func(a, b []int) (n int) {
		for _, i := range a {
			if slices.Contains(b, i) {
				n++
			}
		}
		return n
	}
	taken := 0
	const rounds = 3000
	for range rounds {
		oldRoots, newRoots, signers := some(1+rnd.IntN(4)), some(1+rnd.IntN(4)), some(rnd.IntN(7))
		oldNeed, newNeed := 1+rnd.IntN(len(oldRoots)), 1+rnd.IntN(len(newRoots))
		version := uint64(1 + rnd.IntN(6))
		old, next := set(3, oldRoots, oldNeed), set(version, newRoots, newNeed)
		old.sum[0] = 1 // not the same bytes as next
		keys := make([]crypto.Signer, len(signers))
		for i, n := range signers {
			keys[i] = pool[n]
		}
		got, err := old.Next(signedSet(t, next, keys...))
		want := version > 3 && common(signers, oldRoots) >= oldNeed && common(signers, newRoots) >= newNeed
		if (err == nil) != want {
			t.Fatalf("old %v of %v, new %v of %v, signed by %v, version 3 to %d: %v", oldNeed, oldRoots, newNeed, newRoots, signers, version, err)
		}
		if err == nil {
			taken++
			if !slices.EqualFunc(got.Keys, next.Keys, func(a, b Key) bool {
				return a.Role == b.Role && a.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(b.Public)
			}) {
				t.Fatal("other keys than were signed")
			}
		}
	}
	if taken < rounds/50 || taken > rounds/2 {
		t.Errorf("%d of %d taken: the draw tries one side only", taken, rounds)
	}
}

func FuzzKeySet(f *testing.F) {
	good, err := newRing(f).set.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseKeySet(b)
		if err != nil {
			return
		}
		out, err := s.Encode()
		if err != nil {
			t.Fatalf("read and cannot be written: %v", err)
		}
		back, err := parseKeySet(out)
		if err != nil || back.Version != s.Version || len(back.Keys) != len(s.Keys) {
			t.Fatal(err)
		}
		if !json.Valid(out) {
			t.Fatal("no JSON")
		}
	})
}
