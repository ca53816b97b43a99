// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"fulmar/agent/chip"
	"fulmar/agent/config"
	"fulmar/schema"
	"fulmar/tpm"
)

// How often a key that cannot be had is asked for again.
const (
	keyRetryMin = time.Second
	keyRetryMax = 30 * time.Second
)

// softFile is the board's key where there is no TPM.
const softFile = "board.key"

// Where tells where the key of the identity in dir lives under a key.mode:
// schema.KeyTPM, schema.KeySoftware, or "" where a first start has to find out. What
// was ever in a TPM stays there, whatever becomes of it.
func Where(dir, mode string) string {
	if mode != config.KeyAuto {
		return mode
	}
	there := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	switch {
	case there(chip.KeyFile), there(chip.KeyFile + aside):
		return schema.KeyTPM
	case there(softFile):
		return schema.KeySoftware
	}
	return ""
}

// openKey gives the board's key. It goes on trying until the context ends: a board
// whose TPM is missing, busy or in failure mode must neither get another key nor end.
func (e *Enroller) openKey(ctx context.Context) (Key, error) {
	for wait := keyRetryMin; ; wait = min(2*wait, keyRetryMax) {
		key, err := e.tryKey(ctx)
		if err == nil {
			return key, nil
		}
		e.tell(Status{State: stateOf(err), Err: err})
		e.warn("the board's key cannot be used", err, wait)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (e *Enroller) tryKey(ctx context.Context) (Key, error) {
	switch Where(e.Dir, e.Mode) {
	case schema.KeyTPM:
		return asKey(e.openTPMKey(ctx))
	case schema.KeySoftware:
		return e.openSoft()
	}
	k, err := e.openTPMKey(ctx)
	if err == nil || e.Required || !errors.Is(err, tpm.ErrNoTPM) {
		return asKey(k, err)
	}
	if e.Chip.Awaited() {
		return nil, fmt.Errorf("%w; a firmware TPM may still appear, so no other key is made before the machine is up for %v", err, chip.Patience)
	}
	return e.openSoft()
}

// asKey keeps a nil *TPMKey from becoming a Key that is not nil.
func asKey(k *TPMKey, err error) (Key, error) {
	if err != nil {
		return nil, err
	}
	return k, nil
}

func (e *Enroller) openSoft() (Key, error) {
	key, err := openSoftKey(filepath.Join(e.Dir, softFile))
	if err == nil && !e.warned {
		e.warned = true
		e.Log.Warn("the board's key is a file: it can be copied off the disk, and the board can prove nothing", "mode", key.Mode())
		if e.Chip != nil && e.Mode == config.KeyAuto && e.Chip.Present() {
			e.Log.Info("this board has a TPM that its identity does not use; key.mode: tpm moves it there, after which the fleet has to let it in anew")
		}
	}
	return key, err
}

// State is where a board stands with its identity.
type State string

// The states of an identity, best first.
const (
	StateEnrolled  State = "enrolled"
	StateApproval  State = "waiting_approval" // a person has to let the board in
	StateEnrolling State = "enrolling"        // not yet, or refused; the error says which
	StateNoTPM     State = "tpm_missing"
	StateTPM       State = "tpm_failing"
)

// States lists them.
func States() []State {
	return []State{StateEnrolled, StateApproval, StateEnrolling, StateNoTPM, StateTPM}
}

// Status is what an Enroller says whenever it changes.
type Status struct {
	State State
	// Mode is where the key is, schema.KeyTPM or KeySoftware; "" while that is not known.
	Mode string
	// Fingerprint is what a person compares with the page before approving.
	Fingerprint string
	Err         error // why not enrolled
	// Refusal is the fleet's code where it said no, "token"; "" else.
	Refusal string
}

// stateOf is the state that an error of a key or an enrolment means.
func stateOf(err error) State {
	var w *waiting
	if errors.As(err, &w) {
		return StateApproval
	}
	if errors.Is(err, tpm.ErrNoTPM) {
		return StateNoTPM
	}
	for _, class := range []error{
		tpm.ErrPermission, tpm.ErrBusy, tpm.ErrTimeout, tpm.ErrGone, tpm.ErrProtocol, tpm.ErrLockout, tpm.ErrAuth,
		tpm.ErrPolicy, tpm.ErrForeign, tpm.ErrDamaged, tpm.ErrMissing, tpm.ErrNoSpace, tpm.ErrFailure, chip.ErrBetween,
	} {
		if errors.Is(err, class) {
			return StateTPM
		}
	}
	return StateEnrolling
}

func (e *Enroller) tell(s Status) {
	if e.Say != nil {
		e.Say(s)
	}
}

// warn logs the same trouble once, and again when it changes.
func (e *Enroller) warn(what string, err error, next time.Duration) {
	text := what + err.Error()
	if text == e.last {
		e.Log.Debug(what, "err", err, "next_try", next)
		return
	}
	e.last = text
	e.Log.Warn(what, "err", err, "next_try", next)
}
