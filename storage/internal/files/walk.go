// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"errors"
	"os"

	"fulmar/schema"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
)

// holes gathers numbers that should be there and are not.
type holes []ranges.Range

func (h *holes) add(first, last uint64) {
	if n := len(*h); n > 0 && (*h)[n-1].Last+1 == first {
		(*h)[n-1].Last = last
	} else if first <= last {
		*h = append(*h, ranges.Range{First: first, Last: last})
	}
}

// Walk gives the sound records want to last of one opened file to fn until it
// returns false; that record is not counted as given. It gives the number to go on
// from and the holes before it: numbers that are not there or do not match their
// checksum. Payloads are valid only during fn.
func (c *Chain) Walk(db *segment.DB, want, last uint64, fn func(segment.Record) bool) (next uint64, missing []ranges.Range, err error) {
	next = want
	var h holes
	stopped := false
	err = db.Walk(want, func(r segment.Record, ok bool) bool {
		if r.Seq > last {
			return false
		}
		if r.Seq > next {
			h.add(next, r.Seq-1)
			next = r.Seq
		}
		if !ok {
			h.add(r.Seq, r.Seq)
		} else if !fn(r) {
			stopped = true
			return false
		}
		next = r.Seq + 1
		return true
	})
	switch {
	case errors.Is(err, segment.ErrDamaged):
		c.Log.Error("spool segment is damaged, reading on behind it", "class", c.Class.String(), "seq", next, "err", err)
		to := db.SkipDamage(next, last)
		h.add(next, to-1)
		if db == c.w {
			c.CloseWriter()
		}
		return to, h, nil
	case err != nil:
		return 0, nil, err
	case !stopped && next <= last:
		h.add(next, last)
		next = last + 1
	}
	return next, h, nil
}

// Unreadable tells why a file will not open the next time either; 0: it may.
func Unreadable(err error) schema.Reason {
	switch {
	case errors.Is(err, segment.ErrKeyLost):
		return schema.ReasonKeyLost
	case errors.Is(err, segment.ErrDamaged), errors.Is(err, os.ErrNotExist):
		return schema.ReasonCorrupt
	}
	return 0
}
