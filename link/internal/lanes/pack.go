// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package lanes

import (
	"sort"

	"fulmar/schema"
)

// recordCost is the envelope's share of each record: number, lengths.
const recordCost = 16

// Pack tells how many of the records fit into one message with room for so many
// bytes, at least one; none where the first can be in no message.
func Pack(recs []schema.Stored, room int) (n int) {
	size := 0
	for n < len(recs) && n < schema.MaxRecords && sendable(recs[n]) && recs[n].Epoch == recs[0].Epoch {
		if size += len(recs[n].Payload) + recordCost; n > 0 && size > room {
			break
		}
		n++
	}
	return n
}

// sendable tells whether a record may be part of a message at all.
func sendable(r schema.Stored) bool {
	return len(r.Payload) > 0 && len(r.Payload) <= schema.MaxRecord
}

// Until cuts rising records behind a number.
func Until(recs []schema.Stored, last uint64) []schema.Stored {
	return recs[:sort.Search(len(recs), func(i int) bool { return recs[i].Seq > last })]
}
