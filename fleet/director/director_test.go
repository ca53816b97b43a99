// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package director

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/keyring"
	"fulmar/fleet/registry"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
	"fulmar/trust"
)

// desk is a director with real keys and rows; what it sends is kept.
type desk struct {
	*Director
	t    testing.TB
	keys *keyring.Keyring
	reg  *registry.Registry
	dir  string

	mu      sync.Mutex
	sent    []ota.Assignment
	to      []string
	fresh   map[string]*ota.Proven
	signed  int // batches
	broken  error
	patches []release.Patch
}

func open(t testing.TB) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir(), fresh: map[string]*ota.Proven{}}
	var err error
	if d.keys, err = keyring.Open(filepath.Join(d.dir, keyring.Dir), nil); err != nil {
		t.Fatal(err)
	}
	if d.reg, err = registry.Open(d.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.reg.Close() })
	d.open()
	return d
}

func (d *desk) open() {
	d.t.Helper()
	counted := func(sign func([][]byte) ([]trust.Proof, error)) func([][]byte) ([]trust.Proof, error) {
		return func(s [][]byte) ([]trust.Proof, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.broken != nil {
				return nil, d.broken
			}
			d.signed++
			return sign(s)
		}
	}
	var err error
	d.Director, err = New(d.t.Context(), Config{
		Directives: counted(d.keys.SignDirectives), Fresh: counted(d.keys.SignFresh), Rows: d.reg.Releases(), KeySet: 1, Log: slog.New(slog.DiscardHandler),
		Want: func(_, _, name, _ string) (release.Hash, []release.Patch, error) {
			if name == "none" {
				return release.Hash{}, nil, errors.New("no such release")
			}
			return release.Hash{7}, d.patches, nil
		},
		Send: func(_, board string, b []byte) error {
			a := new(ota.Assignment)
			if err := schema.Decode(b, a); err != nil {
				return err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.sent, d.to = append(d.sent, *a), append(d.to, board)
			return nil
		},
		Answer: func(_, board string, w *ota.Down) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.fresh[board] = w.Fresh
			return w.Validate()
		},
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// enrolled lets boards in, by a row each.
func (d *desk) enrolled(n int) {
	d.t.Helper()
	tx, err := d.reg.Database().Write.BeginTx(d.t.Context(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := range n {
		_, err := tx.ExecContext(d.t.Context(), `INSERT INTO board (tenant, name, key_mode, facts, key_hash, token_hash, serial, fingerprint, not_after, enrolled_at) VALUES ('default', ?, 'software', '{}', ?, x'', '1', ?, 0, 0)`,
			fmt.Sprintf("b%05d", i), fmt.Appendf(nil, "k%d", i), fmt.Appendf(nil, "f%d", i))
		if err != nil {
			d.t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		d.t.Fatal(err)
	}
}

func order(attempt uint64) ota.Assignment {
	return ota.Assignment{V: 1, Rollout: "r-1", Component: "agent", Release: "1.9", Attempt: attempt, Act: ota.Install, Before: "1.8"}
}

func (d *desk) check(w *ota.Proven, typ trust.Type) {
	d.t.Helper()
	p := trust.Proof{Envelope: w.Proof.Envelope, Index: int(w.Proof.Index), Count: int(w.Proof.Count), Path: w.Proof.Path}
	if err := d.keys.Set().VerifyBatch(p, w.Statement, typ, 0); err != nil {
		d.t.Fatal(err)
	}
}

// TestBatch: what comes together has one signature; each board's directive is its own, and
// is sent again as it was until there is another attempt.
func TestBatch(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.enrolled(300)
	for i := range 300 {
		if err := d.Assign("default", fmt.Sprintf("b%05d", i), order(1<<24+uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	bad := order(9)
	bad.Release = "none"
	if err := d.Assign("default", "b00299", bad); err != nil { // in the place of the one before
		t.Fatal(err)
	}
	d.direct(t.Context())
	if d.signed != 1 || len(d.sent) != 299 {
		t.Fatalf("%d signatures for %d assignments", d.signed, len(d.sent))
	}
	for i, a := range d.sent {
		d.check(a.Directive, trust.TypeAssignment)
		w, err := release.ParseDirective(a.Directive.Statement)
		if err != nil || w.Board != d.to[i] || w.Attempt != a.Attempt || w.Manifest != (release.Hash{7}) || w.Before != "1.8" || w.Act != release.ActInstall {
			t.Fatalf("%+v, %v", w, err)
		}
	}
	again := order(1 << 24)
	if err := d.Assign("default", "b00000", again); err != nil || d.signed != 1 || len(d.sent) != 300 {
		t.Fatalf("the same attempt again: %d signatures, %d sent, %v", d.signed, len(d.sent), err)
	}
	for i, b := range d.to[:299] {
		if b == "b00000" && !bytes.Equal(d.sent[i].Directive.Statement, d.sent[299].Directive.Statement) {
			t.Error("the same attempt has another directive")
		}
	}
	undo := order(1<<24 + 500)
	undo.Act, undo.Before = ota.Undo, "of a person, with spaces"
	d.patches = []release.Patch{{}} // not for undo
	if err := d.Assign("default", "b00000", undo); err != nil {
		t.Fatal(err)
	}
	d.direct(t.Context())
	w, err := release.ParseDirective(d.sent[300].Directive.Statement)
	if err != nil || d.signed != 2 || w.Act != release.ActUndo || w.Before != "" || len(w.Patches) != 0 {
		t.Errorf("%+v, %v, %d signatures", w, err, d.signed)
	}
	// What was told is known after a restart, and told by freshness.
	d.open()
	d.Floor("default", "b00000", 4)
	d.Nonce("default", "b00000", bytes.Repeat([]byte{5}, 16))
	d.Nonce("default", "b00000", bytes.Repeat([]byte{6}, 16)) // the newest counts
	d.Nonce("default", "b00001", bytes.Repeat([]byte{7}, 32))
	d.freshen(t.Context())
	if d.signed != 3 || len(d.fresh) != 2 {
		t.Fatalf("%d signatures, %d answers", d.signed, len(d.fresh))
	}
	d.check(d.fresh["b00000"], trust.TypeFreshness)
	f, err := release.ParseFresh(d.fresh["b00000"].Statement)
	if err != nil || f.Attempts["agent"] != 1<<24+500 || f.Floor != 4 || f.Nonce != fmt.Sprintf("%x", bytes.Repeat([]byte{6}, 16)) || f.KeySet != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestSignerAway: nothing goes out unsigned, nothing is noted as told, and it is said
// again by who assigns.
func TestSignerAway(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.enrolled(1)
	d.broken = errors.New("the HSM is away")
	if err := d.Assign("default", "b00000", order(1<<24)); err != nil {
		t.Fatal(err)
	}
	d.direct(t.Context())
	if rows, err := d.reg.Releases().Attempts(t.Context()); len(d.sent) != 0 || err != nil || len(rows) != 0 {
		t.Fatalf("%d sent, noted %+v, %v", len(d.sent), rows, err)
	}
	d.broken = nil
	if err := d.Assign("default", "b00000", order(1<<24)); err != nil {
		t.Fatal(err)
	}
	d.direct(t.Context())
	if len(d.sent) != 1 {
		t.Error("not told once the signer is back")
	}
}

// TestBounds: more than a batch holds is refused, and who assigns hears of it.
func TestBounds(t *testing.T) {
	t.Parallel()
	d := open(t)
	for i := range trust.MaxBatch {
		d.waiting[part{board{"default", fmt.Sprint(i)}, "agent"}] = ota.Assignment{}
		d.nonces[board{"default", fmt.Sprint(i)}] = nil
	}
	if err := d.Assign("default", "one more", order(1)); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	if d.Nonce("default", "one more", make([]byte, 16)); len(d.nonces) != trust.MaxBatch {
		t.Errorf("%d nonces", len(d.nonces))
	}
}

// TestLinger: Run sends by itself, and ends with its context.
func TestLinger(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.enrolled(2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	for i := range 2 {
		if err := d.Assign("default", fmt.Sprintf("b%05d", i), order(1<<24)); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.sent)
	}
	for end := time.Now().Add(10 * time.Second); count() < 2 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
	}
	if d.signed != 1 || count() != 2 {
		t.Errorf("%d signatures, %d sent", d.signed, count())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// BenchmarkWave is a wave of 10,000 boards: statements, one signature, proofs, rows.
func BenchmarkWave(b *testing.B) {
	d := open(b)
	d.enrolled(10_000)
	attempt := uint64(1 << 24)
	for b.Loop() {
		attempt++
		for i := range 10_000 {
			if err := d.Assign("default", fmt.Sprintf("b%05d", i), order(attempt)); err != nil {
				b.Fatal(err)
			}
		}
		d.direct(b.Context())
	}
}
