// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/proofs"
	"fulmar/schema"
	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

const tenant = registry.DefaultTenant

// desk is a fleet with one enrolled board, and that board's TPM.
type desk struct {
	*registry.Registry
	t     *testing.T
	check *Checker
	chip  *tpmtest.Chip
	tpm   *tpm.TPM
	ak    *tpm.Key
	pem   []byte

	mu     sync.Mutex
	now    time.Time
	broken error // of the registry
}

// AK is the registry's, unless that is broken.
func (d *desk) AK(ctx context.Context, tenant, board string) ([]byte, string, error) {
	if d.broken != nil {
		return nil, "", d.broken
	}
	return d.Registry.AK(ctx, tenant, board)
}

func (d *desk) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *desk) wait(w time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(w)
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	d := &desk{Registry: r, t: t, chip: tpmtest.Start(t), now: time.Now().Truncate(time.Millisecond)}
	d.open()
	d.newKey()
	d.check = New(d, r.Proofs(), slog.New(slog.DiscardHandler))
	d.check.now = d.clock
	return d
}

// newKey enrols the board with a new attestation key.
func (d *desk) newKey() {
	d.t.Helper()
	ak, err := d.tpm.CreateKey(tpm.Attestation)
	if err != nil {
		d.t.Fatal(err)
	}
	if d.pem, err = ak.PEM(); err != nil {
		d.t.Fatal(err)
	}
	d.ak = ak
	d.enrol(registry.Enrolment{Board: "b1", KeyMode: schema.KeyTPM, Trust: schema.TrustFirstUse, TPM: &registry.TPM{EKHash: [32]byte{1}, AK: ak.Area()}})
}

// enrol lets a board in by a token of its own.
func (d *desk) enrol(e registry.Enrolment) {
	d.t.Helper()
	var err error
	if e.Secret, err = d.NewJoinToken(d.t.Context(), tenant, e.Board, 1, time.Hour); err != nil {
		d.t.Fatal(err)
	}
	_, _, err = d.Enrol(d.t.Context(), e, func(string) (*ca.Leaf, error) { return &ca.Leaf{Serial: "1", NotAfter: time.Now().Add(time.Hour)}, nil })
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) open() {
	d.t.Helper()
	x, err := tpm.Open(tpm.Config{Path: d.chip.Path()})
	if err != nil {
		d.t.Fatal(err)
	}
	d.tpm = x
	if d.pem != nil {
		if d.ak, err = x.ParseKey(d.pem); err != nil {
			d.t.Fatal(err)
		}
	}
}

// boot cuts the power and starts the board again, with what alter did to the TPM's
// state meanwhile.
func (d *desk) boot(alter func()) {
	d.t.Helper()
	_ = d.tpm.Close()
	d.chip.Kill()
	if alter != nil {
		alter()
	}
	d.chip.Run(d.t)
	d.open()
}

func report(boot uint64) *schema.AttestReport {
	p := sha256.Sum256([]byte("fulmard"))
	return &schema.AttestReport{V: schema.Version, Release: "1.0.0", Program: p[:], Boot: boot, Kind: "virtual", Maker: "IBM", Firmware: "8217.4131", Rollback: "unknown"}
}

// quote makes the attestation that an honest board makes.
func (d *desk) quote(nonce []byte, r *schema.AttestReport) *schema.Attestation {
	d.t.Helper()
	b, err := schema.Encode(r)
	if err != nil {
		d.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	pcrs := attest.NewPCRs(schema.AttestPCRs()...)
	s, err := d.ak.Quote(nonce, sum[:], pcrs)
	if err != nil {
		d.t.Fatal(err)
	}
	values, err := d.tpm.ReadPCRs(pcrs)
	if err != nil {
		d.t.Fatal(err)
	}
	return &schema.Attestation{V: schema.Version, Nonce: nonce, Report: b, Attested: s.Attested, Signature: s.Signature, PCRs: values}
}

func (d *desk) hello(boot, conn uint64) {
	d.check.Hello(tenant, "b1", &schema.Hello{V: schema.Version, Board: "b1", Release: "1.0.0", Conn: conn, Now: schema.Time{Boot: boot}})
}

func (d *desk) ask(conn uint64) []byte { return d.check.Ask(d.t.Context(), tenant, "b1", conn) }

func (d *desk) send(conn uint64, a *schema.Attestation) {
	d.t.Helper()
	b, err := schema.Encode(a)
	if err != nil {
		d.t.Fatal(err)
	}
	d.check.Answer(d.t.Context(), tenant, "b1", conn, b)
}

func (d *desk) kept() proofs.Proof {
	d.t.Helper()
	p, err := d.Proofs().Get(d.t.Context(), tenant, "b1")
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// heard is what the audit log holds of attestations.
func (d *desk) heard() (why []string) {
	d.t.Helper()
	err := d.Audit().Each(d.t.Context(), 0, func(e audit.Entry) error {
		if e.What == "attestation" {
			why = append(why, e.Why)
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return why
}

// round is one question and the honest answer to it.
func (d *desk) round(boot, conn uint64) proofs.Proof {
	d.t.Helper()
	d.hello(boot, conn)
	n := d.ask(conn)
	if n == nil {
		d.t.Fatalf("boot %d, connection %d: not asked", boot, conn)
	}
	d.send(conn, d.quote(n, report(boot)))
	return d.kept()
}

func TestGood(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	p := d.round(1, 10)
	if p.Level != Bound || p.Why != "" || !p.Good.Equal(d.now) || !p.Since.Equal(d.now) || p.Boots() != 0 || p.AK != sha256.Sum256(d.ak.Area()) {
		t.Fatalf("kept: %+v", p)
	}
	r, err := Report(p)
	if err != nil || r.Release != "1.0.0" || r.Kind != "virtual" {
		t.Fatalf("report: %+v, %v", r, err)
	}
	first := d.now

	d.hello(1, 11)
	if d.ask(11) != nil {
		t.Fatal("asked anew while the newest is fresh")
	}
	d.wait(Fresh)
	if n := d.ask(11); n == nil {
		t.Fatal("not asked in the same connection once a day is over")
	} else if d.ask(11) != nil {
		t.Fatal("asked twice at once")
	} else {
		d.send(11, d.quote(n, report(1)))
	}
	if p = d.kept(); !p.Good.Equal(d.now) || !p.Since.Equal(first) {
		t.Fatalf("good at %v since %v, want %v since %v", p.Good, p.Since, d.now, first)
	}
	d.boot(nil)
	d.wait(time.Hour)
	q := d.round(2, 12) // another boot is asked at once
	if q.Resets != p.Resets+1 || q.Boots() != 1 || !q.Since.Equal(first) {
		t.Fatalf("boots %d then %d, since %v, want %v", p.Resets, q.Resets, q.Since, first)
	}
	if s := d.check.Stats(); s != (Stats{Asked: 3, Good: 3}) {
		t.Fatalf("counted %+v", s)
	}
	if all, err := d.Proofs().All(t.Context(), tenant); err != nil || len(all) != 1 || !reflect.DeepEqual(all["b1"], q) {
		t.Fatalf("all: %+v, %v", all, err)
	}
	if err := d.Forget(t.Context(), tenant, "b1", "test", "gone"); err != nil {
		t.Fatal(err)
	}
	if p = d.kept(); !reflect.DeepEqual(p, proofs.Proof{}) {
		t.Fatalf("kept of a forgotten board: %+v", p)
	}
}

// TestSince: another program or a measured boot begin a new time.
func TestSince(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.round(1, 1)
	d.wait(25 * time.Hour)
	d.hello(1, 2)
	r := report(1)
	r.Program = make([]byte, 32)
	d.send(2, d.quote(d.ask(2), r))
	if p := d.kept(); !p.Since.Equal(d.now) || p.Level != Bound {
		t.Fatalf("another program: %+v", p)
	}
	d.wait(25 * time.Hour)
	extend(t, d, 4)
	if p := d.round(1, 3); !p.Since.Equal(d.now) || p.Level != Measured {
		t.Fatalf("measured boot: %+v", p)
	}
}

// extend does to a PCR of the boot what a firmware does.
func extend(t *testing.T, d *desk, pcr int) {
	t.Helper()
	tpmtest.Need(t, "tpm2_pcrextend")
	_ = d.tpm.Close()
	sum := sha256.Sum256([]byte("kernel"))
	cmd := exec.Command("tpm2_pcrextend", "-T", "swtpm:path="+d.chip.Sock, fmt.Sprintf("%d:sha256=%x", pcr, sum))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.open()
}

func TestRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	other := newDesk(t)
	good := d.round(1, 1)
	last := d.quote(make([]byte, 32), report(1)) // as heard on another question
	turn := uint64(1)
	for _, c := range []struct {
		name, why string
		make      func(nonce []byte) *schema.Attestation
	}{
		{"another question", WhyNonce, func([]byte) *schema.Attestation { return last }},
		{"replayed quote under the right nonce", WhyReplayed, func(n []byte) *schema.Attestation { a := *last; a.Nonce = n; return &a }},
		{"report changed", WhyReplayed, func(n []byte) *schema.Attestation {
			a := d.quote(n, report(1))
			r := report(1)
			r.Rollback = "yes"
			a.Report, _ = schema.Encode(r)
			return a
		}},
		{"another TPM's key", WhyKey, func(n []byte) *schema.Attestation { return other.quote(n, report(1)) }},
		{"signature changed", WhyKey, func(n []byte) *schema.Attestation {
			a := d.quote(n, report(1))
			a.Signature[len(a.Signature)-1] ^= 1
			return a
		}},
		{"value of a PCR changed", WhyPCRs, func(n []byte) *schema.Attestation {
			a := d.quote(n, report(1))
			a.PCRs[3] = make([]byte, 32)
			a.PCRs[3][0] = 1
			return a
		}},
		{"fewer PCRs signed", WhyPCRs, func(n []byte) *schema.Attestation {
			a := d.quote(n, report(1))
			sum := sha256.Sum256(a.Report)
			s, err := d.ak.Quote(n, sum[:], attest.NewPCRs(0, 1, 2))
			if err != nil {
				t.Fatal(err)
			}
			a.Attested, a.Signature = s.Attested, s.Signature
			return a
		}},
		{"report of another boot", WhyHello, func(n []byte) *schema.Attestation { return d.quote(n, report(9)) }},
		{"report that is none", WhyMalformed, func(n []byte) *schema.Attestation {
			a := d.quote(n, report(1))
			a.Report = []byte{0xa0}
			sum := sha256.Sum256(a.Report)
			s, err := d.ak.Quote(n, sum[:], attest.NewPCRs(schema.AttestPCRs()...))
			if err != nil {
				t.Fatal(err)
			}
			a.Attested, a.Signature = s.Attested, s.Signature
			return a
		}},
	} {
		turn++
		d.wait(25 * time.Hour)
		d.hello(1, turn)
		n := d.ask(turn)
		if n == nil {
			t.Fatalf("%s: not asked", c.name)
		}
		before := d.kept()
		d.send(turn, c.make(n))
		p := d.kept()
		if p.Why != c.why || p.Refused != before.Refused+1 || !p.RefusedAt.Equal(d.now) {
			t.Errorf("%s: why %q, %d refused, want %q and %d", c.name, p.Why, p.Refused, c.why, before.Refused+1)
		}
		if !p.Good.Equal(good.Good) || p.Level != good.Level {
			t.Errorf("%s: what was proven before is gone: %+v", c.name, p)
		}
		if heard := d.heard(); !strings.HasPrefix(heard[len(heard)-1], Say(c.why)) {
			t.Errorf("%s: audit log holds %q", c.name, heard)
		}
	}
	turn++
	if p := d.round(1, turn); p.Why != "" || p.Refused != turn-2 {
		t.Errorf("after a good one: %+v", p)
	}
	if s := d.check.Stats(); s.Refused != turn-2 || s.Good != 2 {
		t.Errorf("counted %+v", s)
	}
}

// TestOnce: a question is of one connection and good for one answer.
func TestOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.hello(1, 1)
	a := d.quote(d.ask(1), report(1))
	d.send(2, a) // in another connection
	if p := d.kept(); !p.Good.IsZero() || p.Why != "" {
		t.Fatalf("answer of a connection that was not asked: %+v", p)
	}
	d.hello(1, 3) // the board came back before it answered
	if n := d.ask(3); n == nil {
		t.Fatal("not asked again")
	}
	d.send(1, a)
	d.send(3, a)
	if p := d.kept(); !p.Good.IsZero() || p.Why != WhyNonce {
		t.Fatalf("answer to the question of an earlier connection: %+v", p)
	}
	p := d.round(1, 4)
	if p.Why != "" || p.Good.IsZero() {
		t.Fatalf("the question that was open: %+v", p)
	}
	d.wait(25 * time.Hour)
	d.hello(1, 5)
	b := d.quote(d.ask(5), report(1))
	d.send(5, b)
	was := d.kept()
	d.wait(time.Minute)
	d.send(5, b) // the link sent it once more: no harm, and no second proof
	if now := d.kept(); !now.Good.Equal(was.Good) || now.Why != "" {
		t.Fatalf("answer repeated: %+v", now)
	}
	if s := d.check.Stats(); s.Unasked != 3 {
		t.Errorf("counted %+v", s)
	}
}

// TestRewound: the state of a TPM is put back, as on a board that keeps its firmware
// TPM's state in a plain file, or on a copy of it.
func TestRewound(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.round(1, 1)
	state := filepath.Join(d.chip.Dir, "tpm2-00.permall")
	var old []byte
	d.boot(func() {
		var err error
		if old, err = os.ReadFile(state); err != nil {
			t.Fatal(err)
		}
	})
	d.round(2, 2)
	d.boot(nil)
	good := d.round(3, 3)
	d.boot(func() {
		if err := os.WriteFile(state, old, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if p := d.round(4, 4); p.Why != WhyRewound || !p.Good.Equal(good.Good) || p.Boot != 3 {
		t.Fatalf("with old state: %+v", p)
	}
	// Another key on record is another TPM: its clock begins anew.
	d.newKey()
	if p := d.kept(); !p.Good.IsZero() || p.Why != "" {
		t.Fatalf("kept of the key before: %+v", p)
	}
	p := d.round(4, 5)
	if p.Why != "" || p.Boot != 4 || !p.Since.Equal(d.now) || p.Boots() != 0 {
		t.Fatalf("after enrolling again: %+v", p)
	}
	// One of the key before, that was under check meanwhile.
	good.Resets, good.Good = p.Resets+100, d.now
	if err := d.Proofs().Keep(t.Context(), tenant, "b1", good); err != nil {
		t.Fatal(err)
	}
	if p := d.round(4, 6); p.Why != "" || p.Boot != 4 {
		t.Fatalf("after one of the key before: %+v", p)
	}
}

// TestAround: the counters of a TPM begin anywhere.
func TestAround(t *testing.T) {
	t.Parallel()
	at := func(resets, restarts uint32, ms uint64) proofs.Proof {
		return proofs.Proof{Resets: resets, Restarts: restarts, Millis: ms}
	}
	const end = 1<<32 - 1
	for _, c := range []struct {
		was, is proofs.Proof
		back    bool
	}{
		{at(5, 5, 5), at(5, 5, 5), false},
		{at(5, 5, 5), at(5, 5, 4), true},
		{at(5, 5, 5), at(5, 6, 0), false},
		{at(5, 5, 5), at(5, 4, 9), true},
		{at(5, 5, 5), at(6, 0, 0), false},
		{at(5, 5, 5), at(4, 9, 9), true},
		{at(end, 5, 5), at(0, 5, 0), false},
		{at(0, 5, 5), at(end, 5, 9), true},
		{at(5, end, 5), at(5, 1, 0), false},
	} {
		if rewound(c.was, c.is) != c.back {
			t.Errorf("%+v to %+v: want %v", c.was, c.is, c.back)
		}
	}
}

func TestNotAsked(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	if d.ask(1) != nil {
		t.Fatal("asked before the hello")
	}
	d.hello(1, 1)
	if d.ask(2) != nil {
		t.Fatal("asked a connection that is not the newest")
	}
	d.enrol(registry.Enrolment{Board: "b2", KeyMode: schema.KeySoftware, KeyHash: [32]byte{2}})
	d.check.Hello(tenant, "b2", &schema.Hello{Conn: 1})
	if d.check.Ask(t.Context(), tenant, "b2", 1) != nil {
		t.Fatal("asked a board without a TPM")
	}
	d.broken = errors.New("no registry")
	d.hello(1, 2)
	if d.ask(2) != nil || d.check.Stats().Failed != 1 {
		t.Fatal("a registry that fails must cost the question and nothing else")
	}
	d.broken = nil
	if err := d.Revoke(t.Context(), tenant, "b1", "test", "lost"); err != nil {
		t.Fatal(err)
	}
	if d.ask(2) != nil || d.check.Stats().Failed != 1 {
		t.Fatal("a board that is revoked is no fault")
	}
}

func TestSilent(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.hello(1, 1)
	d.ask(1)
	asked := d.now
	if len(d.check.Silent(tenant)) != 0 {
		t.Fatal("silent at once")
	}
	d.wait(Patience)
	d.hello(1, 2) // coming back does not clear it
	if got := d.check.Silent(tenant); !got["b1"].Equal(asked) || len(d.check.Silent("other")) != 0 {
		t.Fatalf("silent: %v", got)
	}
	d.round(1, 3)
	if got := d.check.Silent(tenant); len(got) != 0 {
		t.Fatalf("answered, and silent: %v", got)
	}
}

// TestFlood: what a board repeats is counted each time and written down once a minute.
func TestFlood(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.hello(1, 1)
	d.ask(1)
	for range 100 {
		d.check.Answer(t.Context(), tenant, "b1", 1, []byte("x"))
	}
	if p := d.kept(); p.Refused != 1 || p.Why != WhyMalformed || len(d.heard()) != 1 {
		t.Fatalf("%d written down, audit log holds %q", p.Refused, d.heard())
	}
	d.wait(writeEvery)
	d.check.Answer(t.Context(), tenant, "b1", 1, []byte("x"))
	if p := d.kept(); p.Refused != 101 {
		t.Fatalf("%d written down, want 101", p.Refused)
	}
	if p := d.round(1, 1); p.Why != "" {
		t.Fatalf("then the right one: %+v", p)
	}
}

// TestBounded: boards remembered have a bound, and the newest is among them.
func TestBounded(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for i := range maxBoards + 10 {
		d.check.boards[key{"t", string(rune(i))}] = new(seen)
	}
	d.hello(1, 1)
	if len(d.check.boards) > maxBoards || d.ask(1) == nil {
		t.Fatalf("%d boards remembered", len(d.check.boards))
	}
}
