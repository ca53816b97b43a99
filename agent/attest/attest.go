// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package attest answers the fleet's question what this board is and runs: a report,
// and a quote of the board's TPM over it. There is no answer without a TPM. What the
// quote makes of the report is the fleet's to say; see schema.AttestReport.
package attest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"fulmar/inference/worker"
	"fulmar/schema"
	"fulmar/tpm"
	"fulmar/tpm/attest"
)

// Prover is the board's key in its TPM.
type Prover interface {
	Info(ctx context.Context) (tpm.Info, error)
	// Quote signs the PCRs of schema.AttestPCRs, with a nonce and the hash of a report,
	// and gives their values.
	Quote(ctx context.Context, nonce, report []byte) (*attest.Statement, [][]byte, error)
}

// Self is the running program, as the kernel has it open: also after an update has put
// another file in its place.
const Self = "/proc/self/exe"

// Attestor makes reports of this board. Safe for use by many goroutines.
type Attestor struct {
	Release string
	Boot    uint64                      // as in schema.Time
	Program string                      // Self
	Models  func() []worker.ModelStatus // as the worker tells them now
	// Updates tells what updates are proven by; nil: nothing.
	Updates func() Updates

	mu  sync.Mutex
	sum []byte // of Program, once
}

// Updates is what the report tells of what was brought into force. That a machine started
// anew stands in the quote itself: its reset count.
type Updates struct {
	Slot       string            // fulmard runs from it; "" from none
	Components map[string]string // versions
	Files      map[string][]byte // SHA-256, by component/name
	Floor      uint64
}

// Answer gives the encoded schema.Attestation for a nonce.
func (a *Attestor) Answer(ctx context.Context, p Prover, nonce []byte) ([]byte, error) {
	info, err := p.Info(ctx)
	if err != nil {
		return nil, err
	}
	sum, err := a.program()
	if err != nil {
		return nil, err
	}
	var up Updates
	if a.Updates != nil {
		up = a.Updates()
	}
	report, err := schema.Encode(&schema.AttestReport{
		Slot: up.Slot, Components: up.Components, Files: up.Files, Floor: up.Floor,
		V: schema.Version, Release: a.Release, Program: sum, Models: models(a.Models()), Boot: a.Boot,
		Kind: info.Kind, Maker: info.Maker, Firmware: info.Firmware, Rollback: info.Rollback,
	})
	if err != nil {
		return nil, fmt.Errorf("attestation report: %w", err)
	}
	hash := sha256.Sum256(report)
	st, values, err := p.Quote(ctx, nonce, hash[:])
	if err != nil {
		return nil, err
	}
	b, err := schema.Encode(&schema.Attestation{
		V: schema.Version, Nonce: nonce, Report: report, Attested: st.Attested, Signature: st.Signature, PCRs: values,
	})
	if err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	return b, nil
}

// Runs is the SHA-256 of what runs of a component: of the program itself for agent, of the
// file that a model is run from; nil where it is not known.
func (a *Attestor) Runs(component string) []byte {
	if component == "agent" {
		sum, _ := a.program() // what cannot be read is not told
		return sum
	}
	model, _ := strings.CutPrefix(component, "model/")
	return models(a.Models())[model]
}

// program hashes the running program, the first time only.
func (a *Attestor) program() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sum != nil {
		return a.sum, nil
	}
	f, err := os.Open(a.Program)
	if err != nil {
		return nil, fmt.Errorf("hash the running program: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, fmt.Errorf("hash the running program: %w", err)
	}
	a.sum = h.Sum(nil)
	return a.sum, nil
}

// models maps the models that run to the hashes the worker tells; one without a hash
// is left out, as the fleet could compare nothing.
func models(all []worker.ModelStatus) map[string][]byte {
	out := map[string][]byte{}
	for _, m := range all {
		if sum, err := hex.DecodeString(m.SHA256); err == nil && len(sum) == sha256.Size && m.State == "ready" && len(out) < schema.MaxReportModels {
			out[m.Name] = sum
		}
	}
	return out
}
