// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package merkle is the hash tree of RFC 6962, section 2.1 (SHA-256): one hash stands for a
// list, and a short path proves that something is at a place in it. A signature over the
// hash is one over each entry; a piece of a file can be checked before the rest is there.
package merkle

import (
	"crypto/sha256"
	"crypto/subtle"
)

// Size is that of a hash, in bytes.
const Size = sha256.Size

// Hash is a SHA-256.
type Hash = [Size]byte

// Leaf is the hash of an entry.
func Leaf(data []byte) Hash {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(data)
	return Hash(h.Sum(nil))
}

func node(l, r Hash) Hash {
	var b [1 + 2*Size]byte
	b[0] = 1
	copy(b[1:], l[:])
	copy(b[1+Size:], r[:])
	return sha256.Sum256(b[:])
}

// Tree is all hashes of a list: its leaves, each level above them, the root. It takes 64
// bytes for an entry.
type Tree struct{ levels [][]Hash }

// New makes the tree over leaves (see [Leaf]), of which there is at least one.
func New(leaves []Hash) *Tree {
	t := &Tree{levels: [][]Hash{leaves}}
	for l := leaves; len(l) > 1; {
		// A last one without a partner moves up as it is: that is RFC 6962's cut at the
		// largest power of two.
		up := make([]Hash, 0, (len(l)+1)/2)
		for i := 0; i+1 < len(l); i += 2 {
			up = append(up, node(l[i], l[i+1]))
		}
		if len(l)%2 == 1 {
			up = append(up, l[len(l)-1])
		}
		t.levels = append(t.levels, up)
		l = up
	}
	return t
}

// Len is the number of leaves.
func (t *Tree) Len() int { return len(t.levels[0]) }

// Root is the hash that stands for the list.
func (t *Tree) Root() Hash { return t.levels[len(t.levels)-1][0] }

// Path appends the hashes to dst that prove the place of entry i: its neighbours from the
// leaf up, 32 bytes each.
func (t *Tree) Path(dst []byte, i int) []byte {
	for _, l := range t.levels[:len(t.levels)-1] {
		if s := i ^ 1; s < len(l) {
			dst = append(dst, l[s][:]...)
		}
		i /= 2
	}
	return dst
}

// Verify tells whether a leaf is entry i of the n of the list that root stands for.
func Verify(root, leaf Hash, i, n int, path []byte) bool {
	if i < 0 || i >= n || len(path) > 64*Size {
		return false
	}
	h := leaf
	for ; n > 1; i, n = i/2, (n+1)/2 {
		if i^1 >= n {
			continue
		}
		if len(path) < Size {
			return false
		}
		if s := Hash(path[:Size]); i%2 == 0 {
			h = node(h, s)
		} else {
			h = node(s, h)
		}
		path = path[Size:]
	}
	return len(path) == 0 && subtle.ConstantTimeCompare(h[:], root[:]) == 1
}

// Levels are all hashes, the leaves first, the root last. They are not to be changed.
func (t *Tree) Levels() [][]Hash { return t.levels }

// Roll finds the root of a list that comes one leaf after another, in memory for 64 hashes.
// The zero value is ready.
type Roll struct {
	n     uint64
	whole []Hash // of the complete trees so far, the largest first: one for each bit of n
}

// Add takes the next leaf.
func (r *Roll) Add(leaf Hash) {
	h := leaf
	for n := r.n; n&1 == 1; n >>= 1 {
		last := len(r.whole) - 1
		h = node(r.whole[last], h)
		r.whole = r.whole[:last]
	}
	r.whole = append(r.whole, h)
	r.n++
}

// Len is the number of leaves.
func (r *Roll) Len() int { return int(r.n) }

// Root is the hash of what has come; zeros where nothing has.
func (r *Roll) Root() (h Hash) {
	for i := len(r.whole) - 1; i >= 0; i-- {
		if h == (Hash{}) {
			h = r.whole[i]
		} else {
			h = node(r.whole[i], h)
		}
	}
	return h
}
