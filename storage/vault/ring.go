// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/storage/internal/meta"
)

// Limits of the keyring.
const (
	// MaxKeys bounds the keys kept: one in use, and those that older segments and
	// the recovery key still need.
	MaxKeys = 8
	// MaxBlob bounds a sealed key. A TPM's object with its policy takes under 1 KiB.
	MaxBlob    = 2048
	maxKind    = 16
	maxWrapped = 256 // HPKE with X25519: 32 + 32 + 16
	ringHead   = 8 + 4 + 8
	entryHead  = 3 * 8
	maxRing    = ringHead + MaxKeys*(entryHead+1+maxKind+2+MaxBlob+2+maxWrapped) + 4
)

const (
	ringMagic   = "fulkeys1"
	ringVersion = 1
	ringName    = "keys"
	ringBackup  = "keys.bak"
	ringAside   = "keys.damaged"
)

// ErrNewer says that a newer version of the program wrote the keyring.
var ErrNewer = meta.ErrNewer

var errRing = errors.New("keyring does not match its checksum")

// ID names a key.
type ID uint64

// String gives 16 hex digits.
func (id ID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// entry is one key as the keyring keeps it.
type entry struct {
	id       ID
	created  int64  // ms since 1970
	recovery ID     // to whom wrapped is wrapped; 0: to nobody
	kind     string // of the holder that made blob
	blob     []byte
	wrapped  []byte
}

// ring is the content of one copy of the keyring.
type ring struct {
	gen     uint64
	entries []entry // oldest first
}

func (r *ring) encode() []byte {
	b := append(make([]byte, 0, maxRing), ringMagic...)
	b = append(b, ringVersion, byte(len(r.entries)), 0, 0)
	b = binary.LittleEndian.AppendUint64(b, r.gen)
	for _, e := range r.entries {
		for _, v := range [...]uint64{uint64(e.id), uint64(e.created), uint64(e.recovery)} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		b = append(append(b, byte(len(e.kind))), e.kind...)
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(e.blob))), e.blob...)
		b = append(binary.LittleEndian.AppendUint16(b, uint16(len(e.wrapped))), e.wrapped...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func decodeRing(b []byte) (*ring, error) {
	if len(b) < ringHead+4 || len(b) > maxRing || string(b[:8]) != ringMagic ||
		crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, errRing
	}
	if b[8] > ringVersion {
		return nil, fmt.Errorf("%w: keyring format %d, this program knows %d; update fulmar", ErrNewer, b[8], ringVersion)
	}
	n := int(b[9])
	if b[8] == 0 || n > MaxKeys || b[10] != 0 || b[11] != 0 {
		return nil, errRing
	}
	r := &ring{gen: binary.LittleEndian.Uint64(b[12:])}
	rest := b[ringHead : len(b)-4]
	seen := map[ID]bool{}
	for range n {
		e, more, ok := decodeEntry(rest)
		if !ok || seen[e.id] {
			return nil, errRing
		}
		seen[e.id], rest = true, more
		r.entries = append(r.entries, e)
	}
	if len(rest) > 0 {
		return nil, errRing
	}
	return r, nil
}

func decodeEntry(b []byte) (e entry, rest []byte, ok bool) {
	if len(b) < entryHead {
		return e, nil, false
	}
	e.id, e.created, e.recovery = ID(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:])), ID(binary.LittleEndian.Uint64(b[16:]))
	kind, b, ok1 := take(b[entryHead:], 1, maxKind)
	blob, b, ok2 := take(b, 2, MaxBlob)
	wrapped, b, ok3 := take(b, 2, maxWrapped)
	e.kind, e.blob, e.wrapped = string(kind), blob, wrapped
	return e, b, ok1 && ok2 && ok3
}

// take cuts off a field that begins with its length in width bytes.
func take(b []byte, width, limit int) (field, rest []byte, ok bool) {
	if len(b) < width {
		return nil, nil, false
	}
	n := int(b[0])
	if width == 2 {
		n = int(binary.LittleEndian.Uint16(b))
	}
	if b = b[width:]; n > limit || n > len(b) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

// found is what of the keyring is in a folder.
type found struct {
	ring    *ring // nil: no copy can be read
	bad     int   // copies that are damaged, or missing or old while the other is not
	damaged bool  // there is a copy, and none can be read
}

// CheckVersion fails with [ErrNewer] where a newer version of the program wrote the
// keyring in dir. Whatever else may be wrong with it is for [Open] to say.
func CheckVersion(dir string) error {
	if _, err := loadRing(dir); errors.Is(err, ErrNewer) {
		return err
	}
	return nil
}

// loadRing reads both copies.
func loadRing(dir string) (f found, err error) {
	var rings []*ring
	var ioErr error
	missing, damaged := 0, 0
	for _, name := range [...]string{ringName, ringBackup} {
		path := filepath.Join(dir, name)
		b, err := readRing(path)
		if errors.Is(err, os.ErrNotExist) {
			missing++
			continue
		} else if err != nil {
			ioErr = fmt.Errorf("read keyring %s: %w", path, err)
			continue
		}
		r, err := decodeRing(b)
		if errors.Is(err, ErrNewer) {
			return f, fmt.Errorf("%s: %w", path, err)
		} else if err != nil {
			damaged++
			continue
		}
		rings = append(rings, r)
	}
	for _, r := range rings {
		if f.ring == nil || r.gen > f.ring.gen {
			f.ring = r
		}
	}
	for _, r := range rings {
		if r.gen == f.ring.gen {
			f.bad--
		}
	}
	if f.bad += 2; f.ring == nil {
		if ioErr != nil { // it may be readable later: nothing may be put in its place
			return f, ioErr
		}
		f.damaged = damaged > 0
	}
	return f, nil
}

func readRing(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRing+1))
}

// store writes both copies; the keys may be used when it returns nil.
func (r *ring) store(dir string) error {
	b := r.encode()
	for _, name := range [...]string{ringName, ringBackup} {
		if err := atomicfile.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return fmt.Errorf("write keyring: %w", err)
		}
	}
	return nil
}

// setAside keeps a keyring that cannot be read: somebody may still make sense of it.
func setAside(dir string) error {
	for _, name := range [...]string{ringBackup, ringName} {
		err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, ringAside))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set the damaged keyring aside: %w", err)
		}
	}
	return nil
}

// Owns tells whether a file of that name in a spool's folder is the keyring's, also
// one that a power loss left half made.
func Owns(name string) bool {
	return name == ringName || name == ringBackup || name == ringAside || leftover(name)
}

func leftover(name string) bool {
	return strings.HasPrefix(name, "."+ringName+".tmp-") || strings.HasPrefix(name, "."+ringBackup+".tmp-")
}

// sweep removes what a power loss left half made.
func sweep(dir string) error {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	for _, e := range ents {
		if leftover(e.Name()) && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove unfinished keyring: %w", err)
			}
		}
	}
	return nil
}
