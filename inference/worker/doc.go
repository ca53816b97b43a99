// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package worker is the border between fulmard and fulmar-infer: a setup goes in,
// detections come out, frames never cross. It is the only package under inference
// that fulmard links, so it imports schema, internal, cbor and the standard
// library, nothing else.
//
// # The wire
//
// A unix stream socket carries frames: four bytes of big-endian length, one byte
// of kind, a CBOR body. Both sides send a hello first; a side that meets another
// [Protocol] says so in a refusal and closes. A frame over the limit of its
// direction is refused before memory is taken for it.
//
// # Results
//
// The worker keeps at most [QueueLen] results. When fulmard is away or slow the
// oldest is dropped and counted in [Status].ResultsDropped; the worker never waits
// for its reader and never grows. At most [Window] results are under way at a
// time; fulmard says which it has handled. When a connection breaks, results under
// way are sent again to the same client, which drops those it has handled already.
// A new client (fulmard was restarted) gets the waiting ones; those that were
// under way to the old one may have been kept or not, so they are counted as
// dropped and not sent twice.
//
// # Concurrency
//
// [Server.Send], [Client.Update] and the getters may be called from any goroutine.
// [Handler] is called from one goroutine at a time; as long as it blocks, no
// further result is read.
package worker
