// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package thin

import (
	"errors"

	"fulmar/storage/internal/files"
	"fulmar/storage/internal/segment"
)

// Run is a run of old records, read, and what is to stand for them.
type Run struct {
	Last     uint64 // its last number
	From, To int64  // times of its first and last record, ms since 1970
	Bytes    int    // of its records
	Records  [][]byte
}

// Size is the bytes of the records that stand for the run.
func (r *Run) Size() (n int) {
	for _, b := range r.Records {
		n += len(b)
	}
	return n
}

// Take reads what fits into one run of the i-th file, from number from to last; open
// tells which numbers still count. A run with damage gives nil: the reader will come
// upon it and tell it by its name.
func Take(f *files.Chain, i int, from, last uint64, open func(seq uint64) bool) (*Run, error) {
	db, err := f.Reader(i)
	if errors.Is(err, segment.ErrDamaged) || errors.Is(err, segment.ErrKeyLost) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	r := &Run{}
	var g Gathering
	next, holes, err := f.Walk(db, from, last, func(rec segment.Record) bool {
		if !open(rec.Seq) {
			return true
		}
		if !g.Add(rec.Payload) {
			return false
		}
		if r.From == 0 {
			r.From = rec.Wall
		}
		r.To, r.Bytes = rec.Wall, r.Bytes+len(rec.Payload)
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, h := range holes {
		if open(h.First) || open(h.Last) {
			return nil, nil
		}
	}
	r.Last = next - 1
	r.Records, err = g.Records()
	return r, err
}
