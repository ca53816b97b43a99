// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"slices"
	"testing"
)

// TestSigners: who signed is told of keys of the role alone that are good at the epoch,
// however many others signed.
func TestSigners(t *testing.T) {
	t.Parallel()
	root, one, two, late, release, stranger := newEd(t), newP256(t), newEd(t), newEd(t), newEd(t), newEd(t)
	s := &KeySet{Version: 1, Thresholds: map[Role]int{RoleRoot: 1, RoleOperator: 2, RoleRelease: 1}, Keys: []Key{
		{Role: RoleRoot, Public: root.Public()},
		{Role: RoleOperator, Public: one.Public()},
		{Role: RoleOperator, Public: two.Public()},
		{Role: RoleOperator, Public: late.Public(), From: 1},
		{Role: RoleRelease, Public: release.Public()},
	}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, k := range s.Keys[1:3] {
		id, err := KeyID(k.Public)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, id)
	}
	payload, ids, err := s.Signers(sealed(t, TypeOperator, "x", stranger, two, release, late, one, root), TypeOperator, 0)
	if err != nil || string(payload) != "x" || !slices.Equal(ids, want) {
		t.Errorf("%q by %v, %v", payload, ids, err)
	}
	if _, ids, err := s.Signers(sealed(t, TypeOperator, "x", one, late, release), TypeOperator, 0); !errors.Is(err, ErrSignatures) || ids != nil {
		t.Errorf("one of two: %v %v", ids, err)
	}
}
