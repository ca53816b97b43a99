// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package record is what a board knows of its updates, on the disk: the one in work, those
// that wait, and for each component its newest attempt, the last word on it and what ran
// before. It stands outside of all other stores: it has to be readable by the version
// before and the version after, while one of them is on trial.
//
// # Format
//
// Two files, record.a and record.b, of [FileSize] bytes each, which they have from the
// first moment on: a full disk takes no word of the record. A file begins with eight bytes
// "FULMOTA1", then, little-endian, the sequence number (8), the length of the payload (4)
// and the CRC32C of sequence number, length and payload (4), then the payload, JSON; what
// follows is what longer ones left. A change is written in place over the older of
// the two and is durable before its effect; a power cut leaves the other one.
//
// Fields are only added. A reader skips what it does not know, and writes without it: a
// field has to do no harm by getting lost, as when a newer version falls back to this one.
package record
