// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"testing"

	"fulmar/ota/release"
	"fulmar/schema/ota"
)

// TestHoldIsNotLost: where pieces come faster than they are written, some are lost, but not
// the word that all were sent: the board would wait for them as long as for a dead line.
func TestHoldIsNotLost(t *testing.T) {
	t.Parallel()
	m := NewMQTT(nil)
	tree := release.Hash{1}
	ch := make(chan *ota.Down, inbox)
	m.jobs[tree] = ch
	for i := range 3 * inbox {
		m.Take(&ota.Down{V: 1, Piece: &ota.Piece{Object: tree[:], Index: uint32(i), Data: []byte{1}}})
	}
	m.Take(&ota.Down{V: 1, Hold: &ota.Hold{Object: tree[:], Done: 7}})
	pieces := 0
	for len(ch) > 0 {
		d := <-ch
		if d.Hold != nil {
			if d.Hold.Done != 7 || len(ch) > 0 {
				t.Errorf("%+v with %d behind it", d.Hold, len(ch))
			}
			if pieces != inbox-1 {
				t.Errorf("%d pieces before it", pieces)
			}
			return
		}
		pieces++
	}
	t.Error("the word is lost")
}
