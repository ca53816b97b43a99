// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package answer is the answer to one read of a class while it is put together.
package answer

import "fulmar/schema"

// Answer gathers records of one class and epoch, within the bounds of who asked.
type Answer struct {
	Class    schema.Class
	Epoch    uint64
	Records  int // at most so many
	Room     int // bytes of payload left
	Out      []schema.Stored
	Complete bool // no more fits
}

// Take adds a record and tells whether it did. The first one always fits: a caller
// with a small buffer must still get past a large record.
func (a *Answer) Take(seq uint64, payload []byte) bool {
	if len(a.Out) > 0 && len(payload) > a.Room || len(a.Out) >= a.Records {
		a.Complete = true
		return false
	}
	a.Room -= len(payload)
	a.Out = append(a.Out, schema.Stored{Class: a.Class, Epoch: a.Epoch, Seq: seq, Payload: payload})
	return true
}
