// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package attest checks what a TPM says, with no TPM: quotes, certify statements
// and endorsement certificates; it makes credentials that only one TPM can open
// and approvals of PCR values. The fleet uses it, and tpm shares its templates.
package attest
