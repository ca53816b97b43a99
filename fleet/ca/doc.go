// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ca is the fleet's own certificate authority: it signs the certificate
// of the fleet's server and those of the boards, and nothing else.
//
// An [Authority] is opened from a folder. Its key is an ECDSA P-256 key in a file
// that only the fleet's user may read; it is made at the first start. All methods
// may be called from several goroutines.
package ca
