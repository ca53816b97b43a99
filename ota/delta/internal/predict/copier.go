// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package predict

import (
	"io"

	"fulmar/ota/delta/internal/format"
)

// chunk is how many bytes of the base are in memory at once; a multiple of 8, so that
// the words and pointers of a copy never lie in two chunks.
const chunk = 32 << 10

// Copier reads what the copies of a patch predict. Maker and board both go through
// it, so that they cut the file in the same places.
type Copier struct {
	base      io.ReaderAt
	p         *predictor
	old, pred []byte
}

// NewCopier copies from a base without looking at it.
func NewCopier(base io.ReaderAt) *Copier {
	return &Copier{base: base, pred: make([]byte, chunk)}
}

// NewRewriter copies from a base that is an ELF file, and rewrites its references. It
// takes 8 bytes for each function of the base beside Moves; more than MaxFuncs are
// not looked at.
func NewRewriter(base io.ReaderAt, prev, next *Layout, ops []format.Op) *Copier {
	return &Copier{
		base: base, p: newPredictor(prev, next, NewMoves(ops), base),
		old: make([]byte, chunk+lookahead), pred: make([]byte, chunk+lookahead),
	}
}

// Copy calls emit with what the copy op, to the place to in the new file, predicts,
// piece by piece and in order; each piece but the last has a length that is a multiple
// of 8. The bytes belong to emit until it returns, which may change them. An error is
// emit's or the base's.
func (c *Copier) Copy(op format.Op, to uint64, emit func(b []byte) error) error {
	from, left := uint64(op.Old), int(op.Len)
	if c.p == nil {
		for left > 0 {
			b := c.pred[:min(left, chunk)]
			if err := readFull(c.base, b, from); err != nil {
				return err
			}
			if err := emit(b); err != nil {
				return err
			}
			from += uint64(len(b))
			left -= len(b)
		}
		return nil
	}
	have := 0 // bytes of the lookahead that are already there, and may be rewritten
	for left > 0 {
		n := min(left, chunk-int(from%8)) // from then on the chunks begin at multiples of 8
		end := min(left, n+lookahead)
		if err := readFull(c.base, c.old[have:end], from+uint64(have)); err != nil {
			return err
		}
		copy(c.pred[have:end], c.old[have:end])
		c.p.rewrite(c.pred[:end], c.old[:end], n, from, to)
		have = copy(c.old, c.old[n:end])
		var ahead [lookahead]byte
		copy(ahead[:], c.pred[n:end])
		if err := emit(c.pred[:n]); err != nil {
			return err
		}
		copy(c.pred, ahead[:have])
		from += uint64(n)
		to += uint64(n)
		left -= n
	}
	return nil
}

func readFull(r io.ReaderAt, b []byte, at uint64) error {
	n, err := r.ReadAt(b, int64(at))
	if n == len(b) {
		return nil
	}
	if err == io.EOF || err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}
