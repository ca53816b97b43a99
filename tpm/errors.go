// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"errors"
	"fmt"

	"fulmar/tpm/bus"

	"github.com/google/go-tpm/tpm2"
)

// What went wrong, for errors.Is. Every error of this package wraps one of them
// or is a wrong argument.
var (
	ErrNoTPM      = bus.ErrNoTPM
	ErrPermission = bus.ErrPermission
	ErrBusy       = bus.ErrBusy
	ErrTimeout    = bus.ErrTimeout
	ErrGone       = bus.ErrGone
	ErrProtocol   = bus.ErrProtocol
	ErrLockout    = errors.New("the TPM is locked out after wrong authorizations, it opens by itself")
	ErrAuth       = errors.New("the TPM refused the authorization")
	ErrPolicy     = errors.New("the policy is not met (other PCR values, or no valid approval of them)")
	ErrForeign    = errors.New("made by another TPM, or this one was cleared")
	ErrDamaged    = errors.New("the stored bytes are damaged")
	ErrMissing    = errors.New("not in the TPM")
	ErrNoSpace    = errors.New("the TPM has no space left")
	ErrRollback   = errors.New("an older state was put back")
	ErrFailure    = errors.New("the TPM is in failure mode, only a power cycle helps")
)

// fail says what was being done and of which class the error is.
func fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	if c := class(err); c != nil {
		return fmt.Errorf("tpm: %s: %w: %w", doing, c, err)
	}
	return fmt.Errorf("tpm: %s: %w", doing, err)
}

var codes = []struct {
	class error
	rcs   []error
}{
	{ErrBusy, []error{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate}},
	{ErrLockout, []error{tpm2.TPMRCLockout}},
	{ErrAuth, []error{tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth, tpm2.TPMRCTicket}},
	{ErrPolicy, []error{tpm2.TPMRCPolicyFail, tpm2.TPMRCPCRChanged, tpm2.TPMRCSignature, tpm2.TPMRCPolicyCC}},
	{ErrForeign, []error{tpm2.TPMRCIntegrity}},
	{ErrMissing, []error{tpm2.TPMRCHandle, tpm2.TPMRCNVUninitialized, tpm2.TPMRCReferenceH0}},
	{ErrNoSpace, []error{tpm2.TPMRCNVSpace, tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionHandles}},
	{ErrFailure, []error{tpm2.TPMRCFailure}},
}

func class(err error) error {
	for _, own := range []error{
		ErrNoTPM, ErrPermission, ErrBusy, ErrTimeout, ErrGone, ErrProtocol, ErrLockout, ErrAuth, ErrPolicy,
		ErrForeign, ErrDamaged, ErrMissing, ErrNoSpace, ErrRollback, ErrFailure,
	} {
		if errors.Is(err, own) {
			return nil // already said
		}
	}
	for _, c := range codes {
		for _, rc := range c.rcs {
			if errors.Is(err, rc) {
				return c.class
			}
		}
	}
	var rc tpm2.TPMRC
	if errors.As(err, &rc) {
		return nil // a code of the TPM that speaks for itself
	}
	return ErrProtocol // the library could not read the answer
}
