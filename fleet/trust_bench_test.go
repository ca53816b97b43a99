// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/clones"
	"fulmar/fleet/proof"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/proofs"
)

// BenchmarkEnrolled is what one look at a fleet of 10,000 boards with TPMs costs beside
// their values: who they are and what they proved.
func BenchmarkEnrolled(b *testing.B) {
	const boards = 10_000
	ctx := context.Background()
	reg, err := registry.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer reg.Close()
	token, err := reg.NewJoinToken(ctx, registry.DefaultTenant, "", boards, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for i := range boards {
		name := fmt.Sprintf("b%05d", i)
		key := [32]byte{byte(i), byte(i >> 8), 1}
		_, _, err := reg.Enrol(ctx, registry.Enrolment{
			Secret: token, Board: name, KeyMode: "tpm", Trust: "ek-chain", KeyHash: key,
			TPM: &registry.TPM{EKHash: key, AK: key[:], Kind: "firmware"}, Facts: map[string]string{"model": "Orin NX", "l4t": "36.4.4"},
		}, func(string) (*ca.Leaf, error) {
			return &ca.Leaf{Serial: name, Fingerprint: key, KeyHash: key, NotAfter: time.Now().Add(time.Hour)}, nil
		})
		if err != nil {
			b.Fatal(err)
		}
		p := proofs.Proof{Good: time.Now(), Since: time.Now(), Level: "bound", Report: make([]byte, 200)}
		if err := reg.Proofs().Keep(ctx, registry.DefaultTenant, name, p); err != nil {
			b.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	s := &Server{reg: reg, proofs: proof.New(reg, reg.Proofs(), log), clones: clones.New()}
	b.ReportAllocs()
	for b.Loop() {
		out, err := s.enrolled(ctx, registry.DefaultTenant)
		if err != nil || len(out) != boards {
			b.Fatal(len(out), err)
		}
	}
}
