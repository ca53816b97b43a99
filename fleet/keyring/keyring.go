// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"crypto"
	"errors"
	"fmt"

	"fulmar/trust"
)

// Dir is the folder below the data folder.
const Dir = "trust"

// maxAfter bounds how many sets one board is sent at a time: one that was off for longer
// follows over several connections.
const maxAfter = 16

// TPM opens a key in the server's TPM, see [trust.OpenSigner]; nil: there are none.
type TPM func(rest string) (crypto.Signer, error)

// Keyring is the open keyring. Its methods may be called from any goroutine.
type Keyring struct {
	sets    []sealed // by version; the last is in force
	command *trust.Signer
}

// Open opens the keyring of a folder, and makes one where there is none.
func Open(dir string, tpm TPM) (*Keyring, error) {
	sets, err := load(dir)
	if err == nil && len(sets) == 0 {
		sets, err = make1(dir, tpm)
	}
	if err != nil {
		return nil, err
	}
	k := &Keyring{sets: sets}
	if k.command, err = holds(dir, tpm, sets[len(sets)-1].set); err != nil {
		return nil, err
	}
	return k, nil
}

// Close lets the holder of the command key go.
func (k *Keyring) Close() error { return k.command.Close() }

// KeySet gives the key set in force.
func (k *Keyring) KeySet() (version uint64, envelope []byte) {
	s := k.sets[len(k.sets)-1]
	return s.set.Version, s.envelope
}

// After gives the envelopes that lead a board from the version it has to the one in
// force, in their order, at most sixteen. A board without one (0) gets only the set in
// force.
func (k *Keyring) After(version uint64) (envelopes [][]byte) {
	if version == 0 {
		return [][]byte{k.sets[len(k.sets)-1].envelope}
	}
	for _, s := range k.sets {
		if s.set.Version > version && len(envelopes) < maxAfter {
			envelopes = append(envelopes, s.envelope)
		}
	}
	return envelopes
}

// SignTwin signs what the fleet says of a twin and gives the envelope.
func (k *Keyring) SignTwin(statement []byte) ([]byte, error) {
	return k.sign(trust.TypeTwin, statement)
}

// SignCommand signs a command and gives the envelope.
func (k *Keyring) SignCommand(payload []byte) ([]byte, error) {
	return k.sign(trust.TypeCommand, payload)
}

func (k *Keyring) sign(t trust.Type, payload []byte) ([]byte, error) {
	e, err := trust.NewEnvelope(t, payload)
	if err != nil {
		return nil, err
	}
	if err := e.Sign(k.command); err != nil {
		return nil, fmt.Errorf("command key %.16s: %w", k.command.ID, err)
	}
	return e.Encode()
}

// OpenTwin gives the payload of what this fleet signed of a twin, also with a command
// key of an earlier set.
func (k *Keyring) OpenTwin(envelope []byte) ([]byte, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := len(k.sets) - 1; i >= 0; i-- {
		payload, err := k.sets[i].set.Verify(e, trust.TypeTwin, 0)
		if err == nil {
			return payload, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("twin signed by none of this fleet's %d key sets: %w", len(k.sets), errs[0])
}

// Takes tells whether a board with the key set in force takes an envelope of a twin. One
// signed with a key that was dropped has to be signed anew.
func (k *Keyring) Takes(envelope []byte) bool {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return false
	}
	_, err = k.sets[len(k.sets)-1].set.Verify(e, trust.TypeTwin, 0)
	return err == nil
}

// errNoCommand: a set by which this server could sign nothing.
var errNoCommand = errors.New("the key set names no command key that this server holds")
