// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package merkle

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
)

// mth is the definition of RFC 6962, section 2.1, as it is written there.
func mth(entries [][]byte) Hash {
	if len(entries) == 1 {
		return Leaf(entries[0])
	}
	k := 1
	for k*2 < len(entries) {
		k *= 2
	}
	return node(mth(entries[:k]), mth(entries[k:]))
}

// TestTree: for every size the root is that of the definition, each entry's path proves
// it, and proves no other entry, place, length or root.
func TestTree(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 70; n++ {
		var entries [][]byte
		var leaves []Hash
		for i := range n {
			entries = append(entries, fmt.Appendf(nil, "entry %d", i))
			leaves = append(leaves, Leaf(entries[i]))
		}
		tree := New(leaves)
		root := tree.Root()
		var roll Roll
		for _, l := range leaves {
			roll.Add(l)
		}
		if l := tree.Levels(); roll.Root() != root || roll.Len() != n || len(l[0]) != n || l[len(l)-1][0] != root {
			t.Fatalf("%d entries: one after another %x, wants %x", n, roll.Root(), root)
		}
		if root != mth(entries) || tree.Len() != n {
			t.Fatalf("%d entries: root %x, wants %x", n, root, mth(entries))
		}
		for i := range n {
			path := tree.Path(nil, i)
			if !Verify(root, leaves[i], i, n, path) {
				t.Fatalf("%d of %d is not proven", i, n)
			}
			for j := range n {
				if j != i && (Verify(root, leaves[j], i, n, path) || Verify(root, leaves[i], j, n, path)) {
					t.Fatalf("%d of %d: the path proves %d", i, n, j)
				}
			}
			bad := bytes.Clone(path)
			if len(bad) > 0 {
				bad[len(bad)-1] ^= 1
				if Verify(root, leaves[i], i, n, bad) || Verify(root, leaves[i], i, n, path[Size:]) {
					t.Fatalf("%d of %d: a wrong path proves it", i, n)
				}
			}
			if Verify(root, leaves[i], i, n, append(path, make([]byte, Size)...)) || Verify(Hash{}, leaves[i], i, n, path) || Verify(root, leaves[i], i, 0, path) || Verify(root, leaves[i], -1, n, path) {
				t.Fatalf("%d of %d: too much is proven", i, n)
			}
		}
	}
}

// TestVector is the root of seven entries of RFC 6962's own test data
// (certificate-transparency, merkle_tree_test: inputs of 0, 1, 1, 2, 2, 4 and 4 bytes).
func TestVector(t *testing.T) {
	t.Parallel()
	var leaves []Hash
	for _, s := range []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657"} {
		b, _ := hex.DecodeString(s)
		leaves = append(leaves, Leaf(b))
	}
	root := New(leaves).Root()
	if got := hex.EncodeToString(root[:]); got != "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c" {
		t.Errorf("root %s", got)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("path"), 1, 3)
	f.Fuzz(func(t *testing.T, path []byte, i, n int) {
		if n > 1 && Verify(Hash{1}, Hash{2}, i, n, path) {
			t.Fatal("proven")
		}
	})
}
