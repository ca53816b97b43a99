// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package memdisk

import (
	"encoding/binary"
	"math/rand/v2"
)

// sector is what a disk writes whole: all else may be torn.
const sector = 512

// Op is one thing that happened: a write, a flush, or a note of the test's.
type Op struct {
	Flush bool
	Note  string // not empty: a note
	Off   int64
	Data  []byte // of a write
}

// Replay walks through a log of operations and gives the states that a power loss
// at its positions could have left. Positions must rise.
type Replay struct {
	base *Image // what is certainly on the disk at pos
	log  []Op
	pos  int
}

// NewReplay begins with the image as it was when the log began; it is not changed.
func NewReplay(base *Image, log []Op) *Replay {
	return &Replay{base: base.Clone(), log: log}
}

// At gives a disk that lost power after the first cp operations: all that was
// flushed, and of the later writes a random subset, some of them torn.
func (r *Replay) At(cp int, rng *rand.Rand) *Image {
	flushed := cp
	for flushed > r.pos && !r.log[flushed-1].Flush {
		flushed--
	}
	for ; r.pos < flushed; r.pos++ {
		if op := &r.log[r.pos]; op.Data != nil {
			r.base.WriteAt(op.Data, op.Off)
		}
	}
	img := r.base.Clone()
	// Mostly some are lost; sometimes nearly all, and sometimes nearly none.
	keep := [...]int{5, 50, 50, 95}[rng.IntN(4)]
	for _, op := range r.log[flushed:cp] {
		switch {
		case op.Data == nil:
		case rng.IntN(4) == 0 && !whole(op): // torn
			for s := 0; s < len(op.Data); s += sector {
				if rng.IntN(2) == 0 {
					img.WriteAt(op.Data[s:min(s+sector, len(op.Data))], op.Off+int64(s))
				}
			}
		case rng.IntN(100) < keep:
			img.WriteAt(op.Data, op.Off)
		}
	}
	return img
}

// whole tells whether a write is one that ext4 itself does not survive torn: its
// superblock and that of its journal are written in place and have no second copy
// that a mount would use. Disks write these 4 KiB whole; what is torn here is what
// programs write.
func whole(op Op) bool {
	const journalMagic = 0xc03b3998
	return op.Off < pageSize || len(op.Data) >= 8 && binary.BigEndian.Uint32(op.Data) == journalMagic && op.Data[7] >= 3 && op.Data[7] <= 4
}
