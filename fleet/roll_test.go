// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/ca"
	"fulmar/fleet/clones"
	"fulmar/fleet/ingest"
	"fulmar/fleet/proof"
	"fulmar/fleet/registry"
	"fulmar/schema/rest"
)

// TestRollCall: the list of boards is read again when something of it has changed, whoever
// changed it, and not when something else has.
func TestRollCall(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	console, err := registry.Open(dir) // the command line's
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	token, err := console.NewJoinToken(ctx, registry.DefaultTenant, "", 3, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	enrol := func(i int) {
		name := fmt.Sprintf("b%d", i)
		key := [32]byte{byte(i), 1}
		_, _, err := reg.Enrol(ctx, registry.Enrolment{Secret: token, Board: name, KeyMode: "software", Trust: "software", KeyHash: key}, func(string) (*ca.Leaf, error) {
			return &ca.Leaf{Serial: name, Fingerprint: key, KeyHash: key, NotAfter: time.Now().Add(time.Hour)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	enrol(1)
	enrol(2)
	log := slog.New(slog.DiscardHandler)
	s := &Server{reg: reg, proofs: proof.New(reg, reg.Proofs(), log), clones: clones.New()}
	say := func(site string) {
		t.Helper()
		if _, err := console.Meta().Set(ctx, access.Caller{Tenant: registry.DefaultTenant, Who: "m.kern", Rights: rest.Operator.Rights()}, "b2", rest.Meta{Site: site}, -1); err != nil {
			t.Fatal(err)
		}
	}
	say("hamburg")
	list := func(boards int, anew bool, why string, last any) any {
		t.Helper()
		l, err := s.enrolled(ctx, registry.DefaultTenant)
		if err != nil || len(l) != boards {
			t.Fatal(why, len(l), err)
		}
		if (&l[0] != last) != anew {
			t.Errorf("%s: read again %v, wants %v", why, &l[0] != last, anew)
		}
		if l[1].Name != "b2" || l[1].Meta.Site != "hamburg" || l[0].Meta.Site != "" {
			t.Errorf("%s: %+v", why, l)
		}
		return &l[0]
	}
	last := list(2, true, "the first time", nil)
	last = list(2, false, "nothing has changed", last)
	if _, err := reg.Accounts().EnsureAdmin(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := console.NewJoinToken(ctx, registry.DefaultTenant, "", 1, time.Hour); err != nil {
		t.Fatal(err)
	}
	last = list(2, false, "a user and a token are new", last)
	enrol(3)
	last = list(3, true, "a board is new", last)
	if err := console.Revoke(ctx, registry.DefaultTenant, "b1", "somebody", "stolen"); err != nil {
		t.Fatal(err)
	}
	last = list(3, true, "the command line revoked a board", last)
	for _, boot := range []uint64{1, 2, 1, 2} {
		s.clones.Heard(ingest.BoardKey{Tenant: registry.DefaultTenant, Board: "b3"}, boot)
	}
	last = list(3, true, "two boards use one identity", last)
	last = list(3, false, "nothing has changed again", last)
	say("berlin")
	say("hamburg")
	list(3, true, "somebody said where a board is", last)
}
