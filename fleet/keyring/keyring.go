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

// Roles lists what this server signs with keys of its own.
func Roles() []trust.Role {
	return []trust.Role{trust.RoleCommand, trust.RoleDirector, trust.RoleFreshness}
}

// ErrNotHeld: the key set names no key of a role that this server holds.
var ErrNotHeld = errors.New("the key set names no key of this role that this server holds")

// Keyring is the open keyring. Its methods may be called from any goroutine.
type Keyring struct {
	sets []sealed // by version; the last is in force
	held map[trust.Role]*trust.Signer
	gone map[trust.Role]error // why a key of a role cannot be used
}

// Open opens the keyring of a folder, and makes one where there is none. Where the set in
// force is of a version before there were all roles, and the server's own root suffices,
// it makes the next one. A command key has to be there; without a director or freshness
// key all but updates is served.
func Open(dir string, tpm TPM) (*Keyring, error) {
	sets, err := load(dir)
	if err == nil && len(sets) == 0 {
		sets, err = make1(dir, tpm)
	}
	if err == nil && len(Lacks(sets[len(sets)-1].set)) > 0 {
		if _, _, err = Complete(dir, tpm); errors.Is(err, ErrOffline) {
			err = nil // the holders of the root add them when they like
		} else if err == nil {
			sets, err = load(dir)
		}
	}
	if err != nil {
		return nil, err
	}
	k := &Keyring{sets: sets, held: map[trust.Role]*trust.Signer{}, gone: map[trust.Role]error{}}
	for _, role := range Roles() {
		if key, err := holds(dir, tpm, sets[len(sets)-1].set, role); err == nil {
			k.held[role] = key
		} else {
			k.gone[role] = err
		}
	}
	if err := k.gone[trust.RoleCommand]; err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Close lets the holders of the keys go.
func (k *Keyring) Close() error {
	var errs []error
	for _, key := range k.held {
		errs = append(errs, key.Close())
	}
	return errors.Join(errs...)
}

// Ready tells why the keyring cannot sign for a role; nil: it can.
func (k *Keyring) Ready(role trust.Role) error {
	if k.held[role] != nil {
		return nil
	}
	return k.gone[role]
}

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
	key := k.held[trust.RoleCommand]
	if err := e.Sign(key); err != nil {
		return nil, fmt.Errorf("command key %.16s: %w", key.ID, err)
	}
	return e.Encode()
}

// SignDirectives signs what boards shall run, all with one signature.
func (k *Keyring) SignDirectives(statements [][]byte) ([]trust.Proof, error) {
	return k.batch(trust.RoleDirector, trust.TypeAssignment, statements)
}

// SignFresh signs what is newest, all with one signature.
func (k *Keyring) SignFresh(statements [][]byte) ([]trust.Proof, error) {
	return k.batch(trust.RoleFreshness, trust.TypeFreshness, statements)
}

func (k *Keyring) batch(role trust.Role, t trust.Type, statements [][]byte) ([]trust.Proof, error) {
	key := k.held[role]
	if key == nil {
		return nil, fmt.Errorf("%w; fulmar-fleet keys complete makes it", k.gone[role])
	}
	proofs, err := trust.SignBatch(t, statements, key)
	if err != nil {
		return nil, fmt.Errorf("%s key %.16s: %w", role, key.ID, err)
	}
	return proofs, nil
}

// Set is the key set in force: what boards go by. It is not to be changed.
func (k *Keyring) Set() *trust.KeySet { return k.sets[len(k.sets)-1].set }

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
