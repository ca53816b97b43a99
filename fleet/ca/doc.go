// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ca is the fleet's own certificate authority: it signs the certificate
// of the fleet's server and those of the boards, and nothing else.
//
// An [Authority] is opened from a folder. Its key is an ECDSA P-256 key: a file that
// only the fleet's user may read, made at the first start, or one in a TPM or behind an
// external signer, named by a reference of package trust ([Init], [Next]). Its
// certificate is its own, or another authority's ([Request], [Install]).
//
// A folder holds up to two authorities: the one that issues, and one that comes or
// goes ([Next], [Switch], [Drop]). Boards are told both and trust both, so a fleet
// moves from one to the other without anybody visiting a board.
//
// All methods of an Authority may be called from several goroutines.
package ca
