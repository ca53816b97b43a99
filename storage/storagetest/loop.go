// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storagetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// LoopSegment damages a closed segment's file of many records so that bbolt, following
// its pages, never comes to an end and takes all memory: one of its leaves becomes a
// branch that leads to itself. last: the last leaf, which opening a spool reads; else
// the second, which is only read in its turn.
func LoopSegment(path string, last bool) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("loop segment: %w", err)
	}
	var root uint64
	size := int64(db.Info().PageSize)
	err = db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("q"))
		if b == nil {
			return errors.New("no bucket of records")
		}
		root = uint64(b.Root())
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("loop segment %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("loop segment: %w", err)
	}
	defer f.Close()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, int64(root)*size); err != nil {
		return fmt.Errorf("loop segment: %w", err)
	}
	const head, elem, branch = 16, 16, 1 // of bbolt's pages: id, flags, count, overflow; position, key size, child
	count := int(binary.NativeEndian.Uint16(b[10:]))
	if binary.NativeEndian.Uint16(b[8:]) != branch || count < 3 {
		return fmt.Errorf("loop segment %s: it has too few records", path)
	}
	at := 1
	if last {
		at = count - 1
	}
	e := b[head+at*elem:]
	pos, key := binary.NativeEndian.Uint32(e), make([]byte, binary.NativeEndian.Uint32(e[4:]))
	copy(key, e[pos:])
	leaf := binary.NativeEndian.Uint64(e[8:])

	page := binary.NativeEndian.AppendUint64(nil, leaf)
	page = binary.NativeEndian.AppendUint16(page, branch)
	page = binary.NativeEndian.AppendUint16(page, 1)
	page = binary.NativeEndian.AppendUint32(page, 0)
	page = binary.NativeEndian.AppendUint32(page, elem) // the key lies behind the only element
	page = binary.NativeEndian.AppendUint32(page, uint32(len(key)))
	page = binary.NativeEndian.AppendUint64(page, leaf)
	if _, err := f.WriteAt(append(page, key...), int64(leaf)*size); err != nil {
		return fmt.Errorf("loop segment: %w", err)
	}
	return nil
}
