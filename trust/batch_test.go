// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
)

// TestBatch: one signature proves each statement of a batch at its place, and nothing else.
func TestBatch(t *testing.T) {
	t.Parallel()
	root, director, other := ed25519.NewKeyFromSeed(seedOf("root")), ed25519.NewKeyFromSeed(seedOf("director")), ed25519.NewKeyFromSeed(seedOf("other"))
	set := &KeySet{
		Version: 1, Thresholds: map[Role]int{RoleRoot: 1, RoleDirector: 1, RoleFreshness: 1},
		Keys: []Key{{Role: RoleRoot, Public: root.Public()}, {Role: RoleDirector, Public: director.Public()}, {Role: RoleFreshness, Public: other.Public()}},
	}
	var statements [][]byte
	for i := range 1000 {
		statements = append(statements, fmt.Appendf(nil, `{"board":"b%d"}`, i))
	}
	proofs, err := SignBatch(TypeAssignment, statements, director)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range proofs {
		if err := set.VerifyBatch(p, statements[i], TypeAssignment, 0); err != nil {
			t.Fatal(err)
		}
		if err := set.VerifyBatch(p, statements[(i+1)%1000], TypeAssignment, 0); !errors.Is(err, ErrSignatures) {
			t.Fatalf("the next board's statement: %v", err)
		}
	}
	p := proofs[7]
	for name, bad := range map[string]Proof{
		"index":    {Envelope: p.Envelope, Index: 8, Count: p.Count, Path: p.Path},
		"count":    {Envelope: p.Envelope, Index: 7, Count: 999, Path: p.Path},
		"path":     {Envelope: p.Envelope, Index: 7, Count: p.Count, Path: p.Path[32:]},
		"no path":  {Envelope: p.Envelope, Index: 7, Count: p.Count},
		"envelope": {Envelope: p.Envelope[1:], Index: 7, Count: p.Count, Path: p.Path},
	} {
		if set.VerifyBatch(bad, statements[7], TypeAssignment, 0) == nil {
			t.Errorf("%s: a wrong proof was taken", name)
		}
	}
	if err := set.VerifyBatch(p, statements[7], TypeFreshness, 0); !errors.Is(err, ErrMalformed) {
		t.Errorf("as another type: %v", err)
	}
	stolen, err := SignBatch(TypeAssignment, statements[:1], other) // the freshness key
	if err != nil {
		t.Fatal(err)
	}
	if err := set.VerifyBatch(stolen[0], statements[0], TypeAssignment, 0); !errors.Is(err, ErrSignatures) {
		t.Errorf("signed with a key of another role: %v", err)
	}
	for name, bad := range map[string][][]byte{"none": nil, "an empty one": {nil}, "a long one": {make([]byte, MaxPayload+1)}, "too many": make([][]byte, MaxBatch+1)} {
		if _, err := SignBatch(TypeAssignment, bad, director); err == nil {
			t.Errorf("%s was signed", name)
		}
	}
}

func seedOf(name string) []byte { s := sha256.Sum256([]byte(name)); return s[:] }
