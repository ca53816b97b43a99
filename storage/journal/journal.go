// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package journal keeps small durable state as a log: what was appended is on the disk
// when Append returns, and is there after a power cut, in order. It is for states that
// must be written down before their effect, such as commands; records of the spool have
// package storage.
//
// # Format
//
// Eight bytes "FULMJNL1", then frames: four bytes of length and four of CRC32C of the
// payload, both little-endian, then the payload. A frame that is cut off or whose
// checksum is wrong ends the log: it is the one whose Append never returned, or the disk
// changed it. What stands behind it is put aside, not thrown away, if there is any.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"fulmar/internal/atomicfile"
)

// Bounds of a journal.
const (
	// MaxEntry is the largest entry, in bytes: a signed command and what belongs to it.
	MaxEntry = 128 << 10
	// MaxFile is how large a journal may grow before its owner rewrites it, in bytes.
	MaxFile = 8 << 20
)

const (
	magic  = "FULMJNL1"
	header = 8
)

// Errors of a journal.
var (
	// ErrFull: the journal has to be rewritten before more is appended.
	ErrFull = errors.New("the journal is full")
	// ErrBroken: the disk did not take an entry, and whether it is there is not known.
	// Nothing is appended until the journal is opened anew.
	ErrBroken = errors.New("the journal's disk failed")
	// ErrInUse: another process has the journal.
	ErrInUse = errors.New("the journal is in use")
)

// Journal is one open journal. Its owner calls it from one goroutine at a time.
type Journal struct {
	path   string
	f      *os.File
	lock   *os.File
	size   int64
	broken error
	// Damage tells what was wrong with the file when it was opened, "" for nothing.
	// What could not be read lies beside it as PATH.bad.
	Damage string
}

// Open opens the journal at path, made if it is not there, and gives its entries in
// order. The folder must be there.
func Open(path string) (*Journal, [][]byte, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, nil, fmt.Errorf("open journal %s: %w: %w", path, ErrInUse, err)
	}
	j := &Journal{path: path, lock: lock}
	entries, err := j.open()
	if err != nil {
		_ = j.Close()
		return nil, nil, err
	}
	return j, entries, nil
}

func (j *Journal) open() ([][]byte, error) {
	f, err := os.OpenFile(j.path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := atomicfile.WriteFile(j.path, []byte(magic), 0o600); err != nil {
			return nil, fmt.Errorf("make journal: %w", err)
		}
		f, err = os.OpenFile(j.path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j.f = f
	all, err := io.ReadAll(io.LimitReader(f, MaxFile+MaxEntry+header+1))
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	entries, good := parse(all)
	j.size = int64(good)
	if good == len(all) && good > 0 {
		return entries, nil
	}
	return entries, j.mend(all, good)
}

// parse gives the entries and how many bytes of the file they are. Entries are slices of b.
func parse(b []byte) (entries [][]byte, good int) {
	if !bytes.HasPrefix(b, []byte(magic)) {
		return nil, 0
	}
	good = len(magic)
	for {
		rest := b[good:]
		if len(rest) < header {
			return entries, good
		}
		n := binary.LittleEndian.Uint32(rest)
		if n > MaxEntry || int(n) > len(rest)-header {
			return entries, good
		}
		payload := rest[header : header+int(n)]
		if checksum(payload) != binary.LittleEndian.Uint32(rest[4:]) {
			return entries, good
		}
		entries = append(entries, payload)
		good += header + int(n)
	}
}

// mend cuts off what is no entry. A torn last frame is what a power cut leaves; more than
// one frame can be is kept aside for a person.
func (j *Journal) mend(all []byte, good int) error {
	if good == 0 || len(all)-good > header+MaxEntry || whole(all[good:]) {
		j.Damage = fmt.Sprintf("%d of its %d bytes could not be read; they are in %s", len(all)-good, len(all), filepath.Base(j.path)+".bad")
		if err := atomicfile.WriteFile(j.path+".bad", all, 0o600); err != nil {
			return fmt.Errorf("put a damaged journal aside: %w", err)
		}
	}
	if good == 0 {
		if err := j.replace([]byte(magic)); err != nil {
			return err
		}
		return nil
	}
	return j.cut(int64(good))
}

// whole tells whether something follows a bad frame: then it was not cut off while it was
// written at the end, something changed it. Zeros are nothing; a crash may leave them.
func whole(rest []byte) bool {
	if len(rest) < header {
		return false
	}
	n := binary.LittleEndian.Uint32(rest)
	return n <= MaxEntry && int(n) < len(rest)-header && len(bytes.TrimLeft(rest[header+int(n):], "\x00")) > 0
}

func (j *Journal) cut(size int64) error {
	err := j.f.Truncate(size)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		return fmt.Errorf("cut journal %s back to %d bytes: %w", j.path, size, err)
	}
	j.size = size
	return nil
}

// Append makes entries durable, all or, after a power cut, the first few of them in
// order. After an error they are not there, or the journal says ErrBroken from then on.
func (j *Journal) Append(entries ...[]byte) error {
	if j.broken != nil {
		return j.broken
	}
	var b []byte
	for _, e := range entries {
		if len(e) > MaxEntry {
			return fmt.Errorf("journal %s: an entry of %d bytes, at most %d", j.path, len(e), MaxEntry)
		}
		b = frame(b, e)
	}
	if j.size+int64(len(b)) > MaxFile {
		return fmt.Errorf("journal %s: %w at %d bytes", j.path, ErrFull, j.size)
	}
	_, err := j.f.WriteAt(b, j.size)
	if err == nil {
		err = syscall.Fdatasync(int(j.f.Fd()))
	}
	if err == nil {
		j.size += int64(len(b))
		return nil
	}
	err = fmt.Errorf("append to journal %s: %w", j.path, err)
	if cut := j.cut(j.size); cut != nil {
		j.broken = fmt.Errorf("%w: %w", ErrBroken, errors.Join(err, cut))
		return j.broken
	}
	return err
}

// Size is how large the file is, in bytes.
func (j *Journal) Size() int64 { return j.size }

// Rewrite replaces all entries in one step: after a power cut there are the old ones or
// the new ones.
func (j *Journal) Rewrite(entries [][]byte) error {
	b := []byte(magic)
	for _, e := range entries {
		if len(e) > MaxEntry {
			return fmt.Errorf("journal %s: an entry of %d bytes, at most %d", j.path, len(e), MaxEntry)
		}
		b = frame(b, e)
	}
	if len(b) > MaxFile {
		return fmt.Errorf("journal %s: %w with %d bytes", j.path, ErrFull, len(b))
	}
	return j.replace(b)
}

func (j *Journal) replace(b []byte) error {
	if err := atomicfile.WriteFile(j.path, b, 0o600); err != nil {
		return fmt.Errorf("rewrite journal: %w", err)
	}
	f, err := os.OpenFile(j.path, os.O_RDWR, 0)
	if err != nil {
		j.broken = fmt.Errorf("%w: open it after a rewrite: %w", ErrBroken, err)
		return j.broken
	}
	_ = j.f.Close()
	j.f, j.size, j.broken = f, int64(len(b)), nil
	return nil
}

// Close closes the journal; nothing is lost by not doing so.
func (j *Journal) Close() error {
	var err error
	if j.f != nil {
		err = j.f.Close()
	}
	// Explicitly: a child that is being started at this moment has the descriptor too.
	return errors.Join(err, syscall.Flock(int(j.lock.Fd()), syscall.LOCK_UN), j.lock.Close())
}

func frame(b, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, checksum(payload))
	return append(b, payload...)
}

// checksum is CRC32C, and never that of nothing but zeros: a frame of zeros, as a crash
// may leave it, is none.
func checksum(p []byte) uint32 {
	return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) ^ 0x46554c4d
}
