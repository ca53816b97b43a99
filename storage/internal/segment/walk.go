// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Last is the highest sequence number in the file, 0 if there is none.
func (d *DB) Last() (last uint64, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		k, v := tx.Bucket(bucketRecords).Cursor().Last()
		if k == nil {
			return nil
		}
		key, err := number(k)
		if err != nil {
			return err
		}
		last = span(key, v)
		if _, err := d.body(key, v); err != nil && d.Locked == nil {
			return fmt.Errorf("%w: the last records, from %d: %w", ErrDamaged, key, err)
		}
		return nil
	})
	return last, err
}

// number reads the key of a pack.
func number(k []byte) (uint64, error) {
	if len(k) != 8 {
		return 0, fmt.Errorf("%w: a key of %d bytes", ErrDamaged, len(k))
	}
	return binary.BigEndian.Uint64(k), nil
}

// Walk calls fn for each record from seq on, rising, until it returns false. A
// record whose checksum does not match is told as ok == false, without payload.
// The payload is only valid during the call. Walk returns ErrDamaged where the
// file itself cannot be followed; what fn saw before that is sound.
func (d *DB) Walk(from uint64, fn func(r Record, ok bool) bool) error {
	var n int64
	err := d.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketRecords).Cursor()
		next := uint64(0) // no pack may begin below it
		for k, v := seek(c, from); k != nil; k, v = c.Next() {
			key, err := number(k)
			if err != nil {
				return err
			}
			if key < next {
				return fmt.Errorf("%w: record %d after %d", ErrDamaged, key, next-1)
			}
			n += int64(len(v)) + 16
			last, goOn := span(key, v), true
			body, err := d.body(key, v)
			if err == nil {
				err = decodeBody(key, last, body, func(r Record) bool {
					goOn = r.Seq < from || fn(r, true)
					return goOn
				})
			}
			if err != nil {
				last, goOn = d.tellBad(key, last, from, fn)
			}
			if !goOn {
				return nil
			}
			next = last + 1
		}
		return nil
	})
	d.trim(n)
	return err
}

// seek finds the first pack that may hold a record from number from on.
func seek(c *bolt.Cursor, from uint64) (k, v []byte) {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], from)
	k, v = c.Seek(key[:])
	switch {
	case k == nil:
		return c.Last()
	case bytes.Equal(k, key[:]):
		return k, v
	}
	if pk, pv := c.Prev(); pk != nil {
		return pk, pv
	}
	return c.Seek(key[:])
}

// tellBad tells fn of a pack that cannot be read: of its first number, for what its
// head says of the others is worth nothing; where only the key is missing, of all.
func (d *DB) tellBad(key, last, from uint64, fn func(Record, bool) bool) (upTo uint64, goOn bool) {
	if d.Locked == nil {
		last = key
	}
	for seq := max(key, min(from, last)); seq <= last; seq++ {
		if !fn(Record{Seq: max(seq, from)}, false) {
			return last, false
		}
	}
	return last, true
}

// SkipDamage finds the lowest number above at, up to last+1, from which a file
// that Walk cannot follow at at can be followed again: by doubling steps, then by
// halving back. It gives last+1 where there is none.
func (d *DB) SkipDamage(at, last uint64) uint64 {
	sound := func(n uint64) bool {
		return d.Walk(n, func(Record, bool) bool { return false }) == nil
	}
	bad, good := at, at+1
	for step := uint64(1); good <= last && !sound(good); step *= 2 {
		bad, good = good, good+step
	}
	good = min(good, last+1)
	for bad+1 < good {
		if mid := bad + (good-bad)/2; sound(mid) {
			good = mid
		} else {
			bad = mid
		}
	}
	return good
}
