// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package maker

import (
	"context"
	"encoding/binary"

	"fulmar/ota/delta/internal/format"
)

// maxMatch is how far two places are compared to find the longest match: enough to
// tell them apart, little enough that long runs of one byte are not quadratic.
const maxMatch = 1 << 16

// matcher finds the copies of bsdiff 4 (Colin Percival, 2003): exact matches by suffix
// array, grown on both sides as long as at least half of the bytes agree.
type matcher struct {
	ctx      context.Context
	old, new []byte
	sa       []int32
	ops      []format.Op
	lastScan int // where the current copy begins, in the new file
	lastPos  int // and in the old
}

// match lists the copies that make next of prev, both less than 2 GiB.
func match(ctx context.Context, prev, next []byte) ([]format.Op, error) {
	m := &matcher{ctx: ctx, old: prev, new: next}
	if len(prev) == 0 {
		m.emit(0, len(next))
		return m.ops, nil
	}
	m.sa = suffixes(prev, 255)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.scan(); err != nil {
		return nil, err
	}
	return m.ops, nil
}

// scan walks through the new file to where a match is better by 8 bytes than going on
// with the current copy.
func (m *matcher) scan() error {
	old, next := m.old, m.new
	var scan, n, pos, lastOff int
	for steps := 0; scan < len(next); {
		score := 0 // bytes that the current copy has right in what the match covers
		scan += n
		counted := scan
		for ; scan < len(next); scan++ {
			if steps++; steps&0xfff == 0 && m.ctx.Err() != nil {
				return m.ctx.Err()
			}
			pos, n = m.search(next[scan:min(len(next), scan+maxMatch)])
			for ; counted < scan+n; counted++ {
				if o := counted + lastOff; o >= 0 && o < len(old) && old[o] == next[counted] {
					score++
				}
			}
			if n == score && n != 0 || n > score+8 {
				break
			}
			if o := scan + lastOff; o >= 0 && o < len(old) && old[o] == next[scan] {
				score--
			}
		}
		if n == score && scan < len(next) {
			continue
		}
		ahead, back := m.forward(scan), 0
		if scan < len(next) {
			back = m.backward(scan, pos)
		}
		if over := m.lastScan + ahead - (scan - back); over > 0 {
			keep := m.overlap(over, m.lastScan+ahead-over, m.lastPos+ahead-over, scan-back, pos-back)
			ahead += keep - over
			back -= keep
		}
		m.emit(ahead, scan-back-m.lastScan-ahead)
		m.lastScan, m.lastPos, lastOff = scan-back, pos-back, pos-scan
	}
	return nil
}

func (m *matcher) emit(n, extra int) {
	if n+extra > 0 {
		m.ops = append(m.ops, format.Op{Old: uint32(m.lastPos), Len: uint32(n), Extra: uint32(extra)})
	}
}

// forward says how long the current copy goes on, at most to scan.
func (m *matcher) forward(scan int) (best int) {
	s, top := 0, 0
	for i := 0; m.lastScan+i < scan && m.lastPos+i < len(m.old); {
		if m.old[m.lastPos+i] == m.new[m.lastScan+i] {
			s++
		}
		i++
		if s*2-i > top*2-best {
			top, best = s, i
		}
	}
	return best
}

// backward says how far the match at scan can begin earlier.
func (m *matcher) backward(scan, pos int) (best int) {
	s, top := 0, 0
	for i := 1; scan >= m.lastScan+i && pos >= i; i++ {
		if m.old[pos-i] == m.new[scan-i] {
			s++
		}
		if s*2-i > top*2-best {
			top, best = s, i
		}
	}
	return best
}

// overlap says how many of the n bytes that both copies want go to the first.
func (m *matcher) overlap(n, newA, oldA, newB, oldB int) (best int) {
	s, top := 0, 0
	for i := range n {
		if m.new[newA+i] == m.old[oldA+i] {
			s++
		}
		if m.new[newB+i] == m.old[oldB+i] {
			s--
		}
		if s > top {
			top, best = s, i+1
		}
	}
	return best
}

// search finds the longest match of the front of t in the old file.
func (m *matcher) search(t []byte) (pos, n int) {
	lo, hi := 0, len(m.sa)-1
	for hi-lo >= 2 {
		mid := int(uint(lo+hi) / 2)
		s := m.old[m.sa[mid]:]
		if k := common(s, t); k < len(t) && (k == len(s) || s[k] < t[k]) {
			lo = mid
		} else {
			hi = mid
		}
	}
	a, b := common(m.old[m.sa[lo]:], t), common(m.old[m.sa[hi]:], t)
	if a > b {
		return int(m.sa[lo]), a
	}
	return int(m.sa[hi]), b
}

// common is the length of what a and b begin with alike.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for i+8 <= n && binary.LittleEndian.Uint64(a[i:]) == binary.LittleEndian.Uint64(b[i:]) {
		i += 8
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
