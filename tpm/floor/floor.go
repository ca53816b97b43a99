// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package floor keeps a number that never goes back, the lowest release that a board may
// install, with a TPM's counter and two files.
package floor

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"fulmar/internal/atomicfile"
	"fulmar/tpm"
)

// Index is the NV index of a board's counter for its floor, in the owner's range.
const Index = 0x01804601

// Counter only rises, through power cuts too; *tpm.Counter is one.
type Counter interface {
	Define() (uint64, error) // makes it, if it is not there
	Value() (uint64, error)  // tpm.ErrMissing if it is not there
	Increment() (uint64, error)
}

// Floor is a number that never goes back, though a TPM's counter only counts: a record
// in a file says "floor f while the counter is c". The record whose c the counter has
// is the floor. Putting back an older file, or another board's, is ErrRollback; a
// counter that was deleted is ErrMissing; a file that is gone or damaged is ErrDamaged.
// None of them gives a floor, so nothing may be installed.
//
// Two files, the record and the next one. Raising writes the next record for the
// counter's next value, raises the counter, and puts the next in place of the record;
// whenever the power goes, exactly one of them fits. A next record whose raise never
// came would fit a later one: so each rise first moves the counter on under the old
// floor, which makes every record that was written before void. It costs two steps of
// a counter that rises a few times a year.
//
// It needs a TPM whose counters resist roll-back (Info.Rollback); elsewhere it holds
// only against who has no copy of the TPM's state.
type Floor struct {
	mu  sync.Mutex
	c   Counter
	dir string
	key []byte
}

// minKey: a shorter key could be guessed.
const minKey = 16

// New gives the floor whose record lies in the folder dir (which must be there). The
// key, at least 16 bytes, authenticates the record: who has it, the folder and the TPM
// can lower the floor, so keep it sealed.
func New(c Counter, dir string, key []byte) (*Floor, error) {
	if len(key) < minKey {
		return nil, fmt.Errorf("floor: a key of %d bytes, at least %d", len(key), minKey)
	}
	return &Floor{c: c, dir: dir, key: key}, nil
}

// A record: version, floor, counter, MAC.
const (
	version     = 1
	bodyBytes   = 1 + 8 + 8
	recordBytes = bodyBytes + sha256.Size
)

func (f *Floor) path(next bool) string {
	if next {
		return filepath.Join(f.dir, "floor.next")
	}
	return filepath.Join(f.dir, "floor")
}

func (f *Floor) mac(body []byte) []byte {
	h := hmac.New(sha256.New, f.key)
	h.Write([]byte("fulmar floor"))
	h.Write(body)
	return h.Sum(nil)
}

// record reads one file; ErrDamaged if it is not there or not by our key.
func (f *Floor) record(next bool) (floor, counter uint64, err error) {
	b, err := os.ReadFile(f.path(next))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return 0, 0, fmt.Errorf("%w: the record of the floor, %s, is not there", tpm.ErrDamaged, f.path(next))
	case err != nil:
		return 0, 0, err
	case len(b) != recordBytes || b[0] != version || !hmac.Equal(f.mac(b[:bodyBytes]), b[bodyBytes:]):
		return 0, 0, fmt.Errorf("%w: %s is no record of this board's floor", tpm.ErrDamaged, f.path(next))
	}
	return binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:]), nil
}

// Value is the floor. While there is an error there is no floor to go by: refuse.
func (f *Floor) Value() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, _, _, err := f.value()
	return v, err
}

// value gives the floor, the counter, and whether it is the next record that fits: the
// power went before that was put in place.
func (f *Floor) value() (floor, now uint64, next bool, err error) {
	if now, err = f.c.Value(); err != nil {
		return 0, 0, false, err
	}
	floor, counter, err := f.record(false)
	if err == nil && counter == now {
		return floor, now, false, nil
	}
	if floor, c, err2 := f.record(true); err2 == nil && c == now {
		return floor, now, true, nil
	}
	if err == nil {
		err = fmt.Errorf("%w: the record is for value %d of the counter, which is at %d", tpm.ErrRollback, counter, now)
	}
	return 0, 0, false, fmt.Errorf("floor: read it: %w", err)
}

// Raise raises the floor; to what it is or less changes nothing. After an error it is
// what it was or what it should become, and Value tells which.
func (f *Floor) Raise(to uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	old, now, next, err := f.value()
	if err != nil || to <= old {
		return err
	}
	if next { // before commit writes over it
		if err = f.place(); err != nil {
			return err
		}
	}
	if now, err = f.commit(old, now); err == nil {
		_, err = f.commit(to, now)
	}
	return err
}

// Create defines the counter, if it is not there, and sets the floor to what it is
// given. It is for enrolment and for a person's decision after ErrRollback, ErrMissing
// or ErrDamaged, with the floor that the fleet remembers: it can lower it.
func (f *Floor) Create(floor uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.c.Define()
	if err == nil {
		now, err = f.commit(floor, now) // as in Raise
	}
	if err == nil {
		_, err = f.commit(floor, now)
	}
	return err
}

// commit moves the counter from now to the next value, under this floor.
func (f *Floor) commit(floor, now uint64) (uint64, error) {
	b := binary.BigEndian.AppendUint64([]byte{version}, floor)
	b = binary.BigEndian.AppendUint64(b, now+1)
	if err := f.write(append(b, f.mac(b)...)); err != nil {
		return 0, fmt.Errorf("floor: write the next: %w", err)
	}
	v, err := f.c.Increment()
	if err != nil {
		return 0, err
	}
	if v != now+1 {
		return 0, fmt.Errorf("floor: raise it: %w: the counter went from %d to %d, somebody else raises it", tpm.ErrRollback, now, v)
	}
	return v, f.place()
}

// write replaces the next record, which fits no value that the counter has.
func (f *Floor) write(b []byte) (err error) {
	w, err := os.OpenFile(f.path(true), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
		return err
	}
	return atomicfile.SyncDir(f.dir) // the name too must be there before the counter rises
}

// place puts the next record in place of the record.
func (f *Floor) place() error {
	err := os.Rename(f.path(true), f.path(false))
	if err == nil {
		err = atomicfile.SyncDir(f.dir)
	}
	if err != nil {
		return fmt.Errorf("floor: put the next in place: %w", err)
	}
	return nil
}
