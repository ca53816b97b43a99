// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
)

// What is checked here of bbolt's file format, version 2: little endian where Go
// is. A page begins with id (8), flags (2), count (2), overflow (4); a meta page
// goes on with magic, version, page size, flags (4 each), root, sequence,
// freelist, high water mark, txid and an FNV-1a sum of those before (8 each); a
// branch page with elements of position, key size (4 each) and child (8).
const (
	pageHead    = 16
	branchFlag  = 1
	leafFlag    = 2
	metaBytes   = 64
	metaRoot    = 16
	metaTxid    = 48
	metaSum     = 56
	branchElem  = 16
	maxDepth    = 8       // 100^8 leaves are more than any file holds
	maxBranches = 1 << 16 // of a 256 MiB segment there are about 500
)

// pageAt reads one page, and its kind and count.
func (d *DB) pageAt(id uint64, b []byte) (flags, count uint16, err error) {
	if id > 1<<40 {
		return 0, 0, fmt.Errorf("%w: page %d", ErrDamaged, id)
	}
	if _, err := d.file.ReadAt(b[:pageSize], int64(id)*pageSize); err != nil {
		return 0, 0, fmt.Errorf("%w: page %d: %w", ErrDamaged, id, err)
	}
	if got := binary.NativeEndian.Uint64(b); got != id {
		return 0, 0, fmt.Errorf("%w: page %d says that it is %d", ErrDamaged, id, got)
	}
	return binary.NativeEndian.Uint16(b[8:]), binary.NativeEndian.Uint16(b[10:]), nil
}

// checkRoot makes sure that the root page is a leaf, as it is in a file with two
// buckets.
func (d *DB) checkRoot() error {
	var b [pageSize]byte
	root, txid, found := uint64(0), uint64(0), false
	for id := range uint64(2) {
		if _, _, err := d.pageAt(id, b[:]); err != nil {
			continue // bbolt takes the other one, too
		}
		m := b[pageHead : pageHead+metaBytes]
		sum := fnv.New64a()
		_, _ = sum.Write(m[:metaSum])
		if t := binary.NativeEndian.Uint64(m[metaTxid:]); sum.Sum64() == binary.NativeEndian.Uint64(m[metaSum:]) && (!found || t > txid) {
			root, txid, found = binary.NativeEndian.Uint64(m[metaRoot:]), t, true
		}
	}
	if !found {
		return fmt.Errorf("%w: no sound meta page", ErrDamaged)
	}
	flags, _, err := d.pageAt(root, b[:])
	if err == nil && flags != leafFlag {
		err = fmt.Errorf("%w: the root page is no leaf", ErrDamaged)
	}
	return err
}

// checkBranches makes sure that no branch page of the records leads to a branch
// page at or above its own level. The leaves themselves are not read.
func (d *DB) checkBranches(root uint64) error {
	var b [pageSize]byte
	level, branches := []uint64{root}, []uint64(nil)
	for depth := 0; ; depth++ {
		// All leaves lie at one depth, so one page tells of its level.
		if flags, _, err := d.pageAt(level[0], b[:]); err != nil || flags != branchFlag {
			return nil // what is wrong with it is found, and skipped, by reading
		}
		branches = append(branches, level...)
		if depth == maxDepth || len(branches) > maxBranches {
			return fmt.Errorf("%w: the tree of pages has no bottom", ErrDamaged)
		}
		slices.Sort(branches)
		var next []uint64
		for _, id := range level {
			flags, count, err := d.pageAt(id, b[:])
			if err != nil || flags != branchFlag {
				continue
			}
			for i := range min(int(count), (pageSize-pageHead)/branchElem) {
				child := binary.NativeEndian.Uint64(b[pageHead+i*branchElem+8:])
				if _, cycle := slices.BinarySearch(branches, child); cycle {
					return fmt.Errorf("%w: page %d leads back to page %d", ErrDamaged, id, child)
				}
				next = append(next, child)
			}
		}
		if len(next) == 0 {
			return nil
		}
		level = next
	}
}
