// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"encoding/json"
	"errors"
	"fmt"

	"fulmar/internal/strictjson"
)

// Bounds of the statements that the fleet's server signs for one board.
const (
	MaxDirective = 8 << 10
	MaxFresh     = 4 << 10
	MaxPatches   = 16
	maxNonce     = 64 // hex digits
	minNonce     = 32
)

// ErrDirective: a statement that makes no sense, whoever signed it.
var ErrDirective = errors.New("directive")

// What a directive wants of a board.
const (
	ActInstall = "install"
	ActShadow  = "shadow" // a model: run it beside the one in use
	ActUndo    = "undo"   // go back to what ran before this rollout, or forget it
)

// Directive says what one board shall run: a statement of a trust batch of
// trust.TypeAssignment, signed by the director's key.
type Directive struct {
	V         int    `json:"v"` // 1
	Tenant    string `json:"tenant"`
	Board     string `json:"board"`
	Rollout   string `json:"rollout"`
	Component string `json:"component"`
	Release   string `json:"release"`
	// Attempt rises over all directives for a component of a board: of an equal or lower one
	// nothing is done again.
	Attempt  uint64 `json:"attempt"`
	Act      string `json:"act"`
	Manifest Hash   `json:"manifest"` // SHA-256 of the manifest's bytes; zeros for undo
	Before   string `json:"before,omitempty"`
	// Patches are encodings that the fleet made for what this board runs, beside those of the
	// manifest. To is the object that they give.
	Patches []Patch `json:"patches,omitempty"`
}

// Patch is an encoding of a file of the manifest.
type Patch struct {
	To Hash `json:"to"` // SHA-256 of the file
	Encoding
}

// ParseDirective reads a statement that has been verified.
func ParseDirective(statement []byte) (*Directive, error) {
	d := &Directive{}
	if err := strictjson.Decode(statement, MaxDirective, d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDirective, err)
	}
	return d, d.check()
}

// Encode gives the statement to be signed.
func (d *Directive) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(d)
	if err == nil && len(b) > MaxDirective {
		err = fmt.Errorf("%w of %d bytes, at most %d: fewer patches", ErrDirective, len(b), MaxDirective)
	}
	return b, err
}

func (d *Directive) check() error {
	for _, s := range []string{d.Tenant, d.Board, d.Rollout} {
		if s == "" || len(s) > maxName {
			return fmt.Errorf("%w: %.80q has %d bytes, wants 1 to %d", ErrDirective, s, len(s), maxName)
		}
	}
	switch {
	case d.V != 1 || d.Attempt == 0 || !ComponentName(d.Component) || !Name(d.Release) || d.Before != "" && !Name(d.Before):
		return fmt.Errorf("%w of version %d, attempt %d, component %.80q, release %.80q after %.80q", ErrDirective, d.V, d.Attempt, d.Component, d.Release, d.Before)
	case d.Act != ActInstall && d.Act != ActShadow && d.Act != ActUndo, (d.Act == ActUndo) != (d.Manifest == Hash{}):
		return fmt.Errorf("%w: act %.40q of manifest %s", ErrDirective, d.Act, d.Manifest)
	case len(d.Patches) > MaxPatches:
		return fmt.Errorf("%w: %d patches, at most %d", ErrDirective, len(d.Patches), MaxPatches)
	}
	for i := range d.Patches {
		if err := d.Patches[i].Check(); err != nil {
			return fmt.Errorf("%w: patch %d: %w", ErrDirective, i+1, err)
		}
	}
	return nil
}

// Fresh answers a board's nonce with what is newest: a statement of a trust batch of
// trust.TypeFreshness. A board that knows its own nonce in it knows that nothing newer
// was kept from it, without a clock.
type Fresh struct {
	V      int    `json:"v"` // 1
	Tenant string `json:"tenant"`
	Board  string `json:"board"`
	Nonce  string `json:"nonce"` // hex, 16 to 32 bytes
	Time   int64  `json:"time"`  // of the fleet's clock, ms since 1970
	// Attempts are the newest attempts of this board, by component.
	Attempts map[string]uint64 `json:"attempts,omitempty"`
	KeySet   uint64            `json:"keyset"` // version of the key set in force
	// Floor is the highest epoch that this board has reported as committed: a TPM whose state
	// was put back does not know it any more.
	Floor uint64 `json:"floor"`
}

// ParseFresh reads a statement that has been verified.
func ParseFresh(statement []byte) (*Fresh, error) {
	f := &Fresh{}
	if err := strictjson.Decode(statement, MaxFresh, f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDirective, err)
	}
	return f, f.check()
}

// Encode gives the statement to be signed.
func (f *Fresh) Encode() ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return json.Marshal(f)
}

func (f *Fresh) check() error {
	if f.V != 1 || f.Tenant == "" || f.Board == "" || len(f.Tenant) > maxName || len(f.Board) > maxName ||
		len(f.Nonce) < minNonce || len(f.Nonce) > maxNonce || f.Time < 0 || len(f.Attempts) > MaxComponents {
		return fmt.Errorf("%w: fresh of version %d for %.80q, nonce of %d digits, %d attempts", ErrDirective, f.V, f.Board, len(f.Nonce), len(f.Attempts))
	}
	for name := range f.Attempts {
		if !ComponentName(name) {
			return fmt.Errorf("%w: fresh: component %.80q", ErrDirective, name)
		}
	}
	return nil
}
