// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package schema holds the words on the wire: what a board says to the fleet,
// what the fleet says to a board, and the topics both use.
//
// Everything here is data. The package imports nothing of ours, does no I/O and
// keeps no state, so that the board, the worker, the fleet and every test speak
// from one definition. Values on the wire are append-only: a number once given
// is never given again.
//
// # One record, one identity
//
// A [Record] is what the board promises to deliver: one batch of samples, one
// event, one gap. Its identity is [ID] (board, class, epoch, seq) everywhere: in
// the spool, on the wire, in the fleet's database. Sequence numbers of one
// (board, class, epoch) start at 1 and have no holes: each number reaches the
// fleet either as a record or inside a [Gap].
//
// # One message, one class
//
// A [Message] is the payload of one MQTT PUBLISH. It carries records of exactly
// one (board, class, epoch) in rising order of seq. It is CBOR with integer keys,
// at most [MaxPayload] bytes; the first byte of CBOR here is never '{', so a
// reader can tell it from hand-made JSON.
//
// # Limits
//
// Every decoder of this package takes bytes from outside: it refuses more than
// the limits in limits.go before it allocates for them and never panics.
package schema
