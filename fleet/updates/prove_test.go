// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/ca"
	"fulmar/fleet/keyring"
	"fulmar/fleet/objects"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/proofs"
	"fulmar/fleet/registry/releaserows"
	"fulmar/fleet/releases"
	"fulmar/fleet/releases/releasetest"
	"fulmar/fleet/rollout/runner"
	"fulmar/schema"
)

const (
	tenant = registry.DefaultTenant
	board  = "b1"
)

// desk is updates with a real registry and releases, and one board with a TPM.
func desk(t *testing.T) *Updates {
	t.Helper()
	dir := t.TempDir()
	key := releasetest.Key(t, dir)
	keys, err := keyring.Open(filepath.Join(dir, keyring.Dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reg.Close() })
	store, err := objects.Open(filepath.Join(dir, "objects"), 0)
	if err != nil {
		t.Fatal(err)
	}
	u := &Updates{cfg: Config{Registry: reg}}
	u.Releases, err = releases.New(t.Context(), releases.Config{
		Rows: reg.Releases(), Objects: shelf{store}, Dir: filepath.Join(dir, "incoming"), Set: keys.Set(), Bytes: 1 << 20, Log: slog.New(slog.DiscardHandler),
		Uses:    func(string, string) []string { return nil },
		Running: func(context.Context, string) (map[string]map[string]int, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := reg.NewJoinToken(t.Context(), tenant, "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	hash := [32]byte{1}
	_, _, err = reg.Enrol(t.Context(), registry.Enrolment{
		Secret: token, Board: board, KeyMode: schema.KeyTPM, Trust: "ek-chain", KeyHash: hash,
		TPM: &registry.TPM{EKHash: hash, AK: hash[:], Kind: "firmware"}, Facts: map[string]string{"model": "Orin NX"},
	}, func(string) (*ca.Leaf, error) {
		return &ca.Leaf{Serial: board, Fingerprint: hash, KeyHash: hash, NotAfter: time.Now().Add(time.Hour)}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	releasetest.Known(t.Context(), t, u.Releases, tenant, "36.5", key, "rootfs", "worker")
	return u
}

// signed is what the board's TPM signed: that it was reset so often, and what runs.
func signed(t *testing.T, resets uint32, r *schema.AttestReport) proofs.Proof {
	t.Helper()
	r.V, r.Release, r.Program, r.Kind, r.Rollback = schema.Version, "1.9.0", make([]byte, 32), "firmware", "unknown"
	b, err := schema.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	return proofs.Proof{Good: time.Now(), Since: time.Now(), Level: "bound", Resets: resets, Report: b}
}

// TestStartedAgain: an update of a root file system is proven by a TPM that was reset since
// the board was told, and by the version that runs then.
func TestStartedAgain(t *testing.T) {
	t.Parallel()
	u := desk(t)
	claim := runner.Claim{Tenant: tenant, Board: board, Component: "rootfs", Release: "36.5"}
	runs := func(version string) *schema.AttestReport {
		return &schema.AttestReport{Components: map[string]string{"rootfs": version}}
	}
	told := func(attempt uint64) {
		t.Helper()
		if err := u.cfg.Registry.Releases().Raise(t.Context(), []releaserows.Attempt{{Tenant: tenant, Board: board, Component: "rootfs", Attempt: attempt}}); err != nil {
			t.Fatal(err)
		}
	}
	keep := func(p proofs.Proof) proofs.Proof {
		t.Helper()
		if err := u.cfg.Registry.Proofs().Keep(t.Context(), tenant, board, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	says := func(when string, p proofs.Proof, want string) {
		t.Helper()
		if why := u.mismatch(claim, p); (want == "") != (why == "") || !strings.Contains(why, want) {
			t.Errorf("%s: %q, wants %q", when, why, want)
		}
	}
	told(1)
	says("told before its first attestation", keep(signed(t, 7, runs("36.5"))), "nobody can tell that it started again")
	told(2)
	says("not started again", keep(signed(t, 7, runs("36.5"))), "did not start again")
	says("started again", keep(signed(t, 8, runs("36.5"))), "")
	says("started again, into what ran before", keep(signed(t, 9, runs("36.4"))), `the board runs rootfs "36.4"`)
	told(3)
	says("a start before the next attempt", signed(t, 9, runs("36.5")), "did not start again")
	says("a start after it", signed(t, 10, runs("36.5")), "")
}

// TestFilesProven: a worker is proven by the file that the board has read.
func TestFilesProven(t *testing.T) {
	t.Parallel()
	u := desk(t)
	claim := runner.Claim{Tenant: tenant, Board: board, Component: "worker", Release: "36.5"}
	sum := sha256.Sum256([]byte("worker of 36.5")) // as releasetest makes it
	for want, files := range map[string]map[string][]byte{
		"":        {"worker/file": sum[:]},
		"file of": {"worker/file": make([]byte, 32)},
	} {
		r := &schema.AttestReport{Components: map[string]string{"worker": "36.5"}, Files: files}
		if why := u.mismatch(claim, signed(t, 1, r)); (want == "") != (why == "") || !strings.Contains(why, want) {
			t.Errorf("%q, wants %q", why, want)
		}
	}
}
