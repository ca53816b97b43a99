// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"fulmar/trust"
)

// ErrEpoch: a release of an epoch below the floor, which is never installed again.
var ErrEpoch = errors.New("release of an epoch that has ended")

// Opened is a manifest that release keys have signed.
type Opened struct {
	*Manifest
	Hash    Hash     // of Raw: what a Directive names
	Raw     []byte   // the manifest's bytes
	Signers []string // ids of the keys, in the order of the set
}

// Open opens a signed manifest (a trust.Envelope in its JSON form): enough release keys of the
// set have signed it that are good at its own epoch, which is not below floor. Nothing is
// parsed before enough keys have signed it that are good at some epoch from floor on.
//
// Its own epoch decides, not the floor: so the first release of a key that is good from
// epoch 4 raises a floor of 3, and a key that ended with epoch 4 signs nothing of epoch 4
// though the floor is still at 3.
func Open(set *trust.KeySet, envelope []byte, floor uint64) (*Opened, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	payload, err := vouched(set, e, floor)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := Parse(payload)
	if err != nil {
		return nil, err
	}
	if m.Epoch < floor {
		return nil, fmt.Errorf("%w: release %s is of epoch %d, and the floor is at %d", ErrEpoch, m.Release, m.Epoch, floor)
	}
	_, ids, err := set.Signers(e, trust.TypeRelease, m.Epoch)
	if err != nil {
		return nil, fmt.Errorf("manifest of release %s: %w", m.Release, err)
	}
	return &Opened{Manifest: m, Hash: sha256.Sum256(payload), Raw: payload, Signers: ids}, nil
}

// vouched gives the payload, once there is an epoch from floor on at which enough keys are
// good: only where one begins can there be more of them than before.
func vouched(set *trust.KeySet, e *trust.Envelope, floor uint64) ([]byte, error) {
	epochs := []uint64{floor}
	for _, k := range set.Keys {
		if k.Role == trust.RoleRelease && k.From > floor && !slices.Contains(epochs, k.From) {
			epochs = append(epochs, k.From)
		}
	}
	var first error
	for _, epoch := range epochs {
		payload, err := set.Verify(e, trust.TypeRelease, epoch)
		if err == nil {
			return payload, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}
