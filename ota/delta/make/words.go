// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package maker

import (
	"context"
	"encoding/binary"
	"io"
	"math/bits"

	"fulmar/ota/delta/internal/format"
	"fulmar/ota/delta/internal/predict"
)

const (
	// block is how much of a file is judged at once: small beside a tensor.
	block = 4 << 10
	// change is what a new copy costs in bits, and what else must be saved to make one.
	change = 128
)

// words makes a patch of word differences for each width and keeps the shortest. It
// streams: nothing of the files is held but what was compressed.
func (p *pair) words(ctx context.Context) ([]byte, error) {
	var best []byte
	for _, width := range []int{1, 2, 4} {
		ops, err := p.align(ctx, width)
		if err != nil {
			return nil, err
		}
		b, err := p.encode(ctx, &plan{format.Words, width, ops, nil, predict.NewCopier(p.base)})
		if err != nil {
			return nil, err
		}
		if best == nil || len(b) < len(best) {
			best = b
		}
	}
	return best, nil
}

// way is how a block is made: copied from where it is in the base plus shift, with
// words that begin at phase, or taken as it is.
type way struct {
	shift int64
	phase int64
	extra bool
}

// align walks through the target in blocks and chooses a way for each. Weights stand
// where they stood before, or behind what became longer or shorter at the same
// distance from the end; tensors in a file begin anywhere, so words may have any phase.
func (p *pair) align(ctx context.Context, width int) ([]format.Op, error) {
	shifts := []int64{0}
	if d := p.base.Size() - p.target.Size(); d != 0 {
		shifts = append(shifts, d)
	}
	var ways []way
	for _, s := range shifts {
		for phase := range int64(width) {
			ways = append(ways, way{s, phase, false})
		}
	}
	ways = append(ways, way{extra: true})
	l := &opList{cur: ways[0], width: int64(width), base: p.base.Size()}
	now, prev := make([]byte, block), make([]byte, block)
	for at := int64(0); at < p.target.Size(); at += block {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := now[:min(block, p.target.Size()-at)]
		if _, err := p.target.ReadAt(b, at); err != nil && err != io.EOF {
			return nil, err
		}
		best, least := l.cur, 1<<62
		for i, w := range ways {
			c := 8 * len(b)
			if !w.extra {
				if w != l.cur && len(b) < 2*width {
					continue // no room to begin at another phase
				}
				if at+w.shift < 0 || at+w.shift+int64(len(b)) > p.base.Size() {
					continue
				}
				if w.phase == 0 { // once for each shift
					if _, err := p.base.ReadAt(prev[:len(b)], at+w.shift); err != nil && err != io.EOF {
						return nil, err
					}
				}
				c = cost(b, prev[:len(b)], width, int((ways[i].phase-at)&int64(width-1)))
			}
			if w != l.cur {
				c += change
			}
			if c < least {
				best, least = w, c
			}
		}
		l.next(at, best)
	}
	l.end(p.target.Size())
	return l.ops, nil
}

// cost guesses in bits what the differences of a block take.
func cost(b, prev []byte, width, phase int) (n int) {
	i := min(phase, len(b))
	for ; i+width <= len(b); i += width {
		switch width {
		case 1:
			d := int8(b[i] - prev[i])
			n += bits.Len8(uint8(d<<1 ^ d>>7))
		case 2:
			d := int16(binary.LittleEndian.Uint16(b[i:]) - binary.LittleEndian.Uint16(prev[i:]))
			n += bits.Len16(uint16(d<<1 ^ d>>15))
		case 4:
			d := int32(binary.LittleEndian.Uint32(b[i:]) - binary.LittleEndian.Uint32(prev[i:]))
			n += bits.Len32(uint32(d<<1 ^ d>>31))
		}
	}
	return n
}

// opList turns ways into copies.
type opList struct {
	ops         []format.Op
	width, base int64
	cur         way
	start       int64 // of what cur makes
}

// next says that from at on, or a few bytes later, a block is made another way.
func (l *opList) next(at int64, w way) {
	if w == l.cur {
		return
	}
	// Words of the new copy begin at its phase; up to there the old one goes on, if
	// the base does.
	if !w.extra {
		later := at + (w.phase-at)&(l.width-1)
		if l.cur.extra || later+l.cur.shift <= l.base {
			at = later
		}
	}
	l.end(at)
	l.cur, l.start = w, at
}

func (l *opList) end(at int64) {
	n := uint32(at - l.start)
	switch {
	case n == 0:
	case !l.cur.extra:
		l.ops = append(l.ops, format.Op{Old: uint32(l.start + l.cur.shift), Len: n})
	case len(l.ops) == 0:
		l.ops = append(l.ops, format.Op{Extra: n})
	default:
		l.ops[len(l.ops)-1].Extra += n
	}
}
