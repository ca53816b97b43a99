// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "fmt"

// Anchor ties a board's wall clock to its monotonic clock at the moment of its
// record. A board writes one at its start and whenever its wall clock was set, so
// that records of a boot that never reached the fleet can be placed in real time.
// It travels in [ClassEvent].
type Anchor struct {
	// Old and New are the wall clock less CLOCK_BOOTTIME, ms, before and after the
	// step ([Time.WallOffset]); equal in the first anchor of a start.
	Old int64 `cbor:"1,keyasint"`
	New int64 `cbor:"2,keyasint"`
	// Synced is set where the kernel says that its clock is kept by NTP or the like:
	// then New is right to within seconds.
	Synced bool `cbor:"3,keyasint,omitempty"`
	// Start is set in the anchor that the program writes when it starts.
	Start bool `cbor:"4,keyasint,omitempty"`
}

// maxWall bounds a wall clock that is believed to be one, ms: 292 years either
// side of 1970, what a time in nanoseconds can hold.
const maxWall = 1 << 43

// Validate refuses offsets that no clock can have.
func (a *Anchor) Validate() error {
	for _, v := range [...]int64{a.Old, a.New} {
		if v < -maxWall || v > maxWall {
			return fmt.Errorf("anchor with an offset of %d ms, wants at most %d either way", v, int64(maxWall))
		}
	}
	return nil
}
