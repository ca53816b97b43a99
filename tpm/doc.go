// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package tpm speaks to a TPM 2.0: keys that sign and never leave the chip,
// secrets sealed to the board, quotes, and a counter that only rises.
//
// A TPM is one slow device: operations run one after another, each command has a
// deadline, and no object or session stays loaded after an operation. Keys and
// sealed secrets are kept by the caller as PEM and bytes, under the storage root
// key at SRKHandle. What the fleet needs to check statements is in tpm/attest.
package tpm
