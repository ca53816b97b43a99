// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package lanes

import (
	"slices"

	"fulmar/schema"
)

// Fetch gives the lane's next records by read, which gives durable records from a number
// on and may give others than the lane's. Where skip is not nil it tells of the first
// run of records from a number on that are to be left out for now.
func (l *Lane) Fetch(skip func(c schema.Class, epoch, from uint64) (first, last uint64, ok bool),
	read func(from uint64) ([]schema.Stored, error),
) ([]schema.Stored, error) {
	for {
		end := l.Last
		for skip != nil {
			first, last, ok := skip(l.Class, l.Epoch, l.Next)
			if ok && first <= l.Next {
				l.Next = last + 1
				continue
			}
			if ok {
				end = min(end, first-1)
			}
			break
		}
		if l.Empty || l.Next > l.Last {
			return nil, nil
		}
		recs, err := read(l.Next)
		if err != nil {
			return nil, err
		}
		l.Empty = len(recs) == 0
		mine, alien := recs, func(r schema.Stored) bool { return r.Epoch != l.Epoch || r.Seq < l.Next }
		if slices.ContainsFunc(recs, alien) {
			mine = slices.DeleteFunc(slices.Clone(recs), alien)
		}
		if len(mine) == 0 || mine[0].Seq <= end {
			return Until(mine, end), nil
		}
		// The rest of what is before end is settled: on behind it, or the lane is done.
		l.Next = end + 1
		if end >= l.Last {
			return nil, nil
		}
	}
}
