// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/inference/worker"
	"fulmar/schema"
	"fulmar/tpm"
	"fulmar/tpm/attest"
	"fulmar/tpm/tpmtest"
)

// prover is a real TPM with an attestation key.
type prover struct {
	t  *tpm.TPM
	ak *tpm.Key
}

func (p prover) Info(context.Context) (tpm.Info, error) { return p.t.Info() }

func (p prover) Quote(_ context.Context, nonce, report []byte) (*attest.Statement, [][]byte, error) {
	pcrs := attest.NewPCRs(schema.AttestPCRs()...)
	values, err := p.t.ReadPCRs(pcrs)
	if err != nil {
		return nil, nil, err
	}
	s, err := p.ak.Quote(nonce, report, pcrs)
	return s, values, err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestAnswer: what the board answers is what a fleet accepts, for this nonce and this
// report and no other.
func TestAnswer(t *testing.T) {
	t.Parallel()
	c := must(tpm.Open(tpm.Config{Path: tpmtest.Start(t).Path(), Timeout: 10 * time.Second}))
	t.Cleanup(func() { _ = c.Close() })
	p := prover{c, must(c.CreateKey(tpm.Attestation))}
	program := filepath.Join(t.TempDir(), "fulmard")
	if err := os.WriteFile(program, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("a model"))
	a := &Attestor{Release: "1.2.3", Boot: 42, Program: program, Models: func() []worker.ModelStatus {
		return []worker.ModelStatus{
			{Name: "parcels", State: "ready", SHA256: hex.EncodeToString(sum[:])},
			{Name: "refused", State: "refused", SHA256: hex.EncodeToString(sum[:])},
			{Name: "no hash", State: "ready"},
			{Name: "odd hash", State: "ready", SHA256: "abcd"},
		}
	}}
	nonce := bytes.Repeat([]byte{9}, 32)
	var got schema.Attestation
	if err := schema.Decode(must(a.Answer(t.Context(), p, nonce)), &got); err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(got.Report)
	check := func(nonce, hash []byte) error {
		_, err := attest.VerifyQuote(p.ak.Area(), attest.Statement{Attested: got.Attested, Signature: got.Signature}, nonce, hash, attest.NewPCRs(schema.AttestPCRs()...), got.PCRs)
		return err
	}
	if err := check(nonce, hash[:]); err != nil || !bytes.Equal(got.Nonce, nonce) {
		t.Errorf("the fleet would refuse it: %v", err)
	}
	if err := check(nonce[1:], hash[:]); !errors.Is(err, attest.ErrNonce) {
		t.Errorf("good for another nonce: %v", err)
	}
	if err := check(nonce, hash[1:]); !errors.Is(err, attest.ErrNonce) {
		t.Errorf("good for another report: %v", err)
	}
	var r schema.AttestReport
	if err := schema.Decode(got.Report, &r); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256([]byte("a program"))
	if !bytes.Equal(r.Program, want[:]) || r.Release != "1.2.3" || r.Boot != 42 || len(r.Models) != 1 || !bytes.Equal(r.Models["parcels"], sum[:]) ||
		r.Kind != tpm.Virtual || r.Rollback != tpm.RollbackNo {
		t.Errorf("it reports %+v", r)
	}
	// The file changes under the running program: what runs stays what it is.
	if err := os.WriteFile(program, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b := must(a.program()); !bytes.Equal(b, want[:]) {
		t.Error("the hash followed the file")
	}
	if _, err := (&Attestor{Program: program + "x", Models: a.Models}).Answer(t.Context(), p, nonce); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a program: %v", err)
	}
}

// TestSelf: the running program can be hashed.
func TestSelf(t *testing.T) {
	t.Parallel()
	exe := sha256.Sum256(must(os.ReadFile(must(os.Executable()))))
	if got := must((&Attestor{Program: Self}).program()); !bytes.Equal(got, exe[:]) {
		t.Error("another hash")
	}
}
