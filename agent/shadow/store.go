// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
)

// maxState bounds a file of the state, in bytes: what package twin saves at most (2 MiB,
// a few kilobytes as a rule), and the history.
const maxState = 2<<20 + 512<<10

// magic begins a file of the state; its SHA-256 and the CBOR of saved follow.
const magic = "FULMTWN1"

// saved is all that a board keeps of its twin.
type saved struct {
	V       uint8     `cbor:"1,keyasint"`
	Seq     uint64    `cbor:"2,keyasint"` // of saves: the greater is the newer
	Starts  uint32    `cbor:"3,keyasint"` // runs of the program, in their names
	Tenant  string    `cbor:"4,keyasint,omitempty"`
	Board   string    `cbor:"5,keyasint,omitempty"`
	Twin    []byte    `cbor:"6,keyasint"`           // twin.Board.Save
	Boot    uint64    `cbor:"7,keyasint,omitempty"` // 0: not known
	Mono    int64     `cbor:"8,keyasint,omitempty"` // up to which leases are counted
	Trial   *trial    `cbor:"9,keyasint,omitempty"`
	History []Change  `cbor:"10,keyasint,omitempty"` // the oldest first
	Alarms  []subject `cbor:"11,keyasint,omitempty"` // told to the fleet and standing
	// Outbox is what is to be told and was not yet when this was saved: perhaps it was since.
	Outbox []schema.Report `cbor:"12,keyasint,omitempty"`
}

// Disk is where a shadow keeps its two files. Write puts one in place whole; when it
// returns an error, the file may hold the old or the new.
type Disk interface {
	Read(name string) ([]byte, error) // fs.ErrNotExist
	Write(name string, b []byte) error
	Aside(name string) error // out of the way: damaged
}

// folder is a Disk that is one.
type folder string

// Read reads a file, at most one byte more than it may have.
func (d folder) Read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxState+1))
}

// Write replaces a file; the folder is made if it is not there.
func (d folder) Write(name string, b []byte) error {
	err := atomicfile.WriteFile(filepath.Join(string(d), name), b, 0o600)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(string(d), name), b, 0o600)
}

// Aside renames a file to NAME.bad, over an earlier one: of damage one is enough to look at.
func (d folder) Aside(name string) error {
	path := filepath.Join(string(d), name)
	return os.Rename(path, path+".bad")
}

// slots are the files of the state, written in turn: one that the disk damaged leaves the
// one before it.
func slots() [2]string { return [2]string{"state.0", "state.1"} }

// codec writes and reads the state.
var codec = sync.OnceValues(func() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.EncOptions{Sort: cbor.SortCoreDeterministic}.EncMode()
	if err != nil {
		panic(err) // the options are constants: only a broken build gets here
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 8, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxArrayElements: 1 << 10, MaxMapPairs: 1 << 10,
	}.DecMode()
	if err != nil {
		panic(err) // the same
	}
	return enc, dec
})

func pack(s *saved) ([]byte, error) {
	enc, _ := codec()
	b, err := enc.Marshal(s)
	if err != nil {
		return nil, err
	}
	if len(b) > maxState-len(magic)-sha256.Size {
		return nil, fmt.Errorf("%d bytes, at most %d", len(b), maxState)
	}
	sum := sha256.Sum256(b)
	return append(append([]byte(magic), sum[:]...), b...), nil
}

func unpack(b []byte) (*saved, error) {
	if len(b) > maxState {
		return nil, fmt.Errorf("has over %d bytes", maxState)
	}
	body, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok || len(body) < sha256.Size {
		return nil, errors.New("is no state of a twin")
	}
	sum, body := body[:sha256.Size], body[sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, errors.New("has another checksum than it was written with")
	}
	var s saved
	_, dec := codec()
	if err := dec.Unmarshal(body, &s); err != nil {
		return nil, err
	}
	if s.V != schema.Version {
		return nil, fmt.Errorf("is of version %d, this program reads %d", s.V, schema.Version)
	}
	if len(s.History) > MaxHistory || len(s.Alarms) > maxAlarms || len(s.Outbox) > maxOutbox {
		return nil, fmt.Errorf("holds a history of %d, %d alarms and %d reports, at most %d, %d and %d",
			len(s.History), len(s.Alarms), len(s.Outbox), MaxHistory, maxAlarms, maxOutbox)
	}
	return &s, nil
}

// load reads the newest state that takes accepts. Files that cannot be read are put aside;
// damage tells of them, "" for none. nil: a board without a past.
func load(d Disk, takes func(*saved) error) (newest *saved, damage string) {
	for _, name := range slots() {
		b, err := d.Read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var s *saved
		if err == nil {
			s, err = unpack(b)
		}
		if err == nil {
			err = takes(s)
		}
		if err != nil {
			damage = fmt.Sprintf("%s %v; it lies beside it as %s.bad", name, err, name)
			if err := d.Aside(name); err != nil {
				damage = fmt.Sprintf("%s; it could not be put aside: %v", damage, err)
			}
			continue
		}
		if newest == nil || s.Seq > newest.Seq {
			newest = s
		}
	}
	return newest, damage
}
