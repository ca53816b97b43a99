// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package transfer tests the way of an object from the fleet's store into a board's folder:
// the real store, caster, gateway and fetcher over TLS on loopback, with the real link or,
// for a thousand boards, a smaller client. It has no code of its own.
package transfer
