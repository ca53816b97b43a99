// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tuf

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"fulmar/trust"
)

// people are the keys of both worlds: three of each kind.
type person struct {
	key  crypto.Signer
	tuf  signature.Signer
	name *metadata.Key
}

func people(t *testing.T) (out []person) {
	t.Helper()
	for i := range 6 {
		var p person
		var err error
		hash := crypto.Hash(0)
		if i%2 == 0 {
			_, p.key, err = ed25519.GenerateKey(rand.Reader)
		} else {
			p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			hash = crypto.SHA256
		}
		if err == nil {
			p.tuf, err = signature.LoadSigner(p.key, hash)
		}
		if err == nil {
			p.name, err = metadata.KeyFromPublicKey(p.key.Public())
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// plan is a set of keys as both say it.
type plan struct {
	version   int
	roots     []int
	threshold int
	releases  []int
	needed    int
}

func (p *plan) ours(who []person) *trust.KeySet {
	s := &trust.KeySet{Version: uint64(p.version), Thresholds: map[trust.Role]int{trust.RoleRoot: p.threshold, trust.RoleRelease: p.needed}}
	for _, i := range p.roots {
		s.Keys = append(s.Keys, trust.Key{Role: trust.RoleRoot, Public: who[i].key.Public()})
	}
	for _, i := range p.releases {
		s.Keys = append(s.Keys, trust.Key{Role: trust.RoleRelease, Public: who[i].key.Public()})
	}
	return s
}

func (p *plan) theirs(t *testing.T, who []person) *metadata.Metadata[metadata.RootType] {
	t.Helper()
	m := metadata.Root(time.Now().AddDate(1, 0, 0))
	m.Signed.Version = int64(p.version)
	for role, keys := range map[string][]int{metadata.ROOT: p.roots, metadata.TARGETS: p.releases, metadata.SNAPSHOT: p.releases, metadata.TIMESTAMP: p.releases} {
		for _, i := range keys {
			if err := m.Signed.AddKey(who[i].name, role); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.Signed.Roles[metadata.ROOT].Threshold = p.threshold
	m.Signed.Roles[metadata.TARGETS].Threshold = p.needed
	return m
}

// signers are those who sign, and what happens to the signature of one of them.
type signers struct {
	who    []int
	harmed int // its signature is changed; -1 none
	stolen int // its signature is shown as another's; -1 none
}

func (s *signers) ours(t *testing.T, typ trust.Type, payload []byte, who []person) *trust.Envelope {
	t.Helper()
	e, err := trust.NewEnvelope(typ, payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range s.who {
		if err := e.Sign(who[i].key); err != nil {
			t.Fatal(err)
		}
	}
	for n, i := range s.who {
		if i == s.harmed {
			e.Signatures[n].Sig[8] ^= 1
		}
		if i == s.stolen {
			id, err := trust.KeyID(who[other(s.who, len(who))].key.Public())
			if err != nil {
				t.Fatal(err)
			}
			e.Signatures[n].KeyID = id
		}
	}
	return e
}

func sign[T metadata.Roles](t *testing.T, s *signers, m *metadata.Metadata[T], who []person) []byte {
	t.Helper()
	for _, i := range s.who {
		if _, err := m.Sign(who[i].tuf); err != nil {
			t.Fatal(err)
		}
	}
	for n, i := range s.who {
		if i == s.harmed {
			m.Signatures[n].Signature[8] ^= 1
		}
		if i == s.stolen {
			id, err := who[other(s.who, len(who))].name.ID()
			if err != nil {
				t.Fatal(err)
			}
			m.Signatures[n].KeyID = id
		}
	}
	b, err := m.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// other is one who has not signed.
func other(who []int, n int) int {
	for i := range n {
		there := false
		for _, k := range who {
			there = there || k == i
		}
		if !there {
			return i
		}
	}
	return 0
}

func some(r *mrand.Rand, of []int, least int) []int {
	p := r.Perm(len(of))[:least+r.IntN(len(of)-least+1)]
	out := make([]int, len(p))
	for i, k := range p {
		out[i] = of[k]
	}
	return out
}

func randomSigners(r *mrand.Rand) *signers {
	s := &signers{who: some(r, []int{0, 1, 2, 3, 4, 5}, 0), harmed: -1, stolen: -1}
	if len(s.who) > 0 && len(s.who) < 6 {
		switch r.IntN(4) {
		case 0:
			s.harmed = s.who[r.IntN(len(s.who))]
		case 1:
			s.stolen = s.who[r.IntN(len(s.who))]
		}
	}
	return s
}

func randomPlan(r *mrand.Rand, version int) *plan {
	all := r.Perm(6)
	n := 1 + r.IntN(4)
	p := &plan{version: version, roots: all[:n], releases: all[n : n+1+r.IntN(6-n)]}
	p.threshold, p.needed = 1+r.IntN(len(p.roots)), 1+r.IntN(len(p.releases))
	return p
}

// TestRotation: 1,000 random successors of random roots are taken by both or by none.
func TestRotation(t *testing.T) {
	t.Parallel()
	who := people(t)
	r := mrand.New(mrand.NewPCG(8, 56))
	taken, refused := 0, map[string]int{}
	for n := range 1000 {
		old := randomPlan(r, 5)
		by := &signers{who: old.roots, harmed: -1, stolen: -1}
		payload, err := old.ours(who).Encode()
		if err != nil {
			t.Fatal(err)
		}
		set, err := trust.OpenKeySet(by.ours(t, trust.TypeKeySet, payload, who), sha256.Sum256(payload))
		if err != nil {
			t.Fatal(err)
		}
		trusted, err := trustedmetadata.New(sign(t, by, old.theirs(t, who), who))
		if err != nil {
			t.Fatal(err)
		}
		next := randomPlan(r, 4+r.IntN(3)) // lower, the same, higher by one
		if r.IntN(3) == 0 {                // mostly the same people
			next.roots, next.releases = old.roots, old.releases
			next.threshold, next.needed = old.threshold, old.needed
		}
		s := randomSigners(r)
		if r.IntN(3) == 0 {
			s.who = []int{0, 1, 2, 3, 4, 5}
			s.harmed, s.stolen = -1, -1
		}
		if payload, err = next.ours(who).Encode(); err != nil {
			t.Fatal(err)
		}
		_, ours := set.Next(s.ours(t, trust.TypeKeySet, payload, who))
		_, theirs := trusted.UpdateRoot(sign(t, s, next.theirs(t, who), who))
		if (ours == nil) != (theirs == nil) && next.version == 5 && ours == nil {
			continue // the set in force, given again: ours is the same set
		}
		if (ours == nil) != (theirs == nil) {
			t.Fatalf("case %d: ours %v, theirs %v\nold  %+v\nnext %+v\nsigned %+v", n, ours, theirs, old, next, s)
		}
		switch {
		case ours == nil:
			taken++
		case errors.Is(ours, trust.ErrRollback):
			refused["version"]++
		case errors.Is(ours, trust.ErrSignatures):
			refused["signatures"]++
		default:
			t.Fatalf("case %d: %v", n, ours)
		}
	}
	t.Logf("%d taken, %v refused", taken, refused)
	if taken < 75 || refused["version"] < 75 || refused["signatures"] < 75 {
		t.Error("the cases are one-sided")
	}
}

// TestThreshold: 1,000 random signatures of a release (targets, to TUF) are enough for both or
// for none.
func TestThreshold(t *testing.T) {
	t.Parallel()
	who := people(t)
	r := mrand.New(mrand.NewPCG(9, 56))
	taken := 0
	for n := range 1000 {
		p := randomPlan(r, 1)
		s := randomSigners(r)
		set, root := p.ours(who), p.theirs(t, who)
		if err := set.Check(); err != nil {
			t.Fatal(err)
		}
		payload := fmt.Appendf(nil, `{"release":"%d"}`, n)
		_, ours := set.Verify(s.ours(t, trust.TypeRelease, payload, who), trust.TypeRelease, 0)
		targets := metadata.Targets(time.Now().AddDate(1, 0, 0))
		targets.Signed.Version = int64(n + 1)
		back, err := metadata.Targets().FromBytes(sign(t, s, targets, who))
		if err != nil {
			t.Fatal(err)
		}
		theirs := root.VerifyDelegate(metadata.TARGETS, back)
		if (ours == nil) != (theirs == nil) {
			t.Fatalf("case %d: ours %v, theirs %v\nset %+v\nsigned %+v", n, ours, theirs, p, s)
		}
		if ours == nil {
			taken++
		}
	}
	t.Logf("%d taken of 1000", taken)
	if taken < 100 || taken > 900 {
		t.Error("the cases are one-sided")
	}
}

// TestWhereWeDiffer: what fulmar allows and TUF does not, on purpose.
func TestWhereWeDiffer(t *testing.T) {
	t.Parallel()
	who := people(t)
	p := &plan{version: 1, roots: []int{0, 1, 2}, threshold: 2, releases: []int{3}, needed: 1}
	all := &signers{who: []int{0, 1, 2}, harmed: -1, stolen: -1}
	payload, err := p.ours(who).Encode()
	if err != nil {
		t.Fatal(err)
	}
	first := all.ours(t, trust.TypeKeySet, payload, who)
	set, err := trust.OpenKeySet(first, sha256.Sum256(payload))
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := trustedmetadata.New(sign(t, all, p.theirs(t, who), who))
	if err != nil {
		t.Fatal(err)
	}
	if same, err := set.Next(first); err != nil || same != set {
		t.Errorf("the set in force, given again: %v", err)
	}
	p.version = 4 // boards get sets 2 and 3 as well, but need not
	if payload, err = p.ours(who).Encode(); err != nil {
		t.Fatal(err)
	}
	if next, err := set.Next(all.ours(t, trust.TypeKeySet, payload, who)); err != nil || next.Version != 4 {
		t.Errorf("a set that skips versions: %v", err)
	}
	if _, err := trusted.UpdateRoot(sign(t, all, p.theirs(t, who), who)); err == nil {
		t.Error("TUF takes a root that skips versions by now: is the doc of this package right?")
	}
}
