// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"fulmar/internal/atomicfile"
)

// Floor is a number that only rises: what is older is refused from then on.
type Floor interface {
	// Floor gives the number; 0 where it was never raised.
	Floor() (uint64, error)
	// Raise sets it, durably. The present one is no error, a lower one ErrRollback.
	Raise(to uint64) error
}

// ErrTampered: the floor's record is gone or was changed; nothing may be installed
// until a person has looked.
var ErrTampered = errors.New("the record of the floor is damaged or was changed")

const (
	floorSlot  = 4096 // bytes between the slots: damage to one sector spares the other
	floorMagic = "fulmarfl"
	floorBytes = len(floorMagic) + 8 + sha256.Size // magic, number, MAC
	floorFile  = "floor"
	floorKey   = "floor.key"
)

// FileFloor keeps a floor in a file of two slots, each with a MAC under a key beside
// it. A power cut leaves the old number or the new one, and a damaged slot is mended
// from the other. It does NOT resist somebody who puts back an older copy of the folder,
// or removes it: only a TPM's counter does.
type FileFloor struct {
	dir string
	mu  sync.Mutex
	key []byte
}

// OpenFileFloor opens the floor in a folder, which it makes with mode 0700.
// [ErrTampered] where a part of it is gone or neither slot is whole.
func OpenFileFloor(dir string) (*FileFloor, error) {
	f := &FileFloor{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open floor: %w", err)
	}
	var err error
	f.key, err = os.ReadFile(filepath.Join(dir, floorKey))
	if errors.Is(err, fs.ErrNotExist) {
		err = f.create()
	}
	if err != nil {
		return nil, fmt.Errorf("open floor: %w", err)
	}
	n, whole, err := f.read()
	if err == nil && !whole {
		err = f.write(n) // a power cut between the slots, or damage to one
	}
	return f, err
}

// create makes the record, then the key: a record of 0 without a key is a creation
// that was cut, any other one has lost its key.
func (f *FileFloor) create() error {
	old, err := readAtMost(filepath.Join(f.dir, floorFile), floorSlot+floorBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for at := 0; at+floorBytes <= len(old); at += floorSlot {
		if !bytes.HasPrefix(old[at:], binary.BigEndian.AppendUint64([]byte(floorMagic), 0)) {
			return fmt.Errorf("%s: %w: %s is gone", f.dir, ErrTampered, floorKey)
		}
	}
	f.key = make([]byte, sha256.Size)
	_, _ = rand.Read(f.key) // never fails: crypto/rand ends the process instead
	image := make([]byte, floorSlot+floorBytes)
	copy(image, f.record(0))
	copy(image[floorSlot:], f.record(0))
	if err := atomicfile.WriteFile(filepath.Join(f.dir, floorFile), image, 0o600); err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(f.dir, floorKey), f.key, 0o600)
}

func (f *FileFloor) record(n uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte(floorMagic), n)
	m := hmac.New(sha256.New, f.key)
	m.Write(b)
	return m.Sum(b)
}

// read gives the highest number of a slot that is whole, and whether both say it.
func (f *FileFloor) read() (n uint64, both bool, err error) {
	b, err := readAtMost(filepath.Join(f.dir, floorFile), floorSlot+floorBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, false, fmt.Errorf("read floor: %w", err)
	}
	var found []uint64
	for at := 0; at+floorBytes <= len(b) && len(f.key) == sha256.Size; at += floorSlot {
		v := binary.BigEndian.Uint64(b[at+len(floorMagic):])
		if hmac.Equal(b[at:at+floorBytes], f.record(v)) {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return 0, false, fmt.Errorf("read floor in %s: %w", f.dir, ErrTampered)
	case 1:
		return found[0], false, nil
	}
	return max(found[0], found[1]), found[0] == found[1], nil
}

// write sets both slots, one after the other, each durable before the next is touched:
// as long as both were whole before, one is whole at any moment.
func (f *FileFloor) write(n uint64) error {
	w, err := os.OpenFile(filepath.Join(f.dir, floorFile), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write floor: %w", err)
	}
	for _, at := range []int64{0, floorSlot} {
		if _, err = w.WriteAt(f.record(n), at); err == nil {
			err = w.Sync()
		}
		if err != nil {
			break
		}
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("write floor: %w", err)
	}
	return nil
}

// Floor implements [Floor]; it reads the file.
func (f *FileFloor) Floor() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, _, err := f.read()
	return n, err
}

// Raise implements [Floor].
func (f *FileFloor) Raise(to uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, both, err := f.read()
	switch {
	case err != nil:
		return err
	case to < n:
		return fmt.Errorf("%w: floor %d, and it is at %d", ErrRollback, to, n)
	case !both: // mend first: the whole slot gets the bytes it has
		if err := f.write(n); err != nil {
			return err
		}
	}
	if to == n {
		return nil
	}
	return f.write(to)
}

func readAtMost(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(n)))
}
