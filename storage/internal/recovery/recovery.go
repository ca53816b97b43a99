// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package recovery finds out where a class stands from what lies in its folder,
// whatever stopped the one who wrote it.
package recovery

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"fulmar/storage/internal/classconf"
	"fulmar/storage/internal/files"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/segment"
)

// State is where a class stands.
type State struct {
	meta.Meta
	Used    uint64 // highest number that is known to have been used
	Exact   bool   // no number above Used is in a file, or ever was
	Bad     int    // copies of the meta that are missing or damaged, both written anew
	young   bool   // the missing copy told nothing that the other one does not
	Shelved int    // files moved to quarantine
}

// Load looks at the files of a class, which it lists, and at its meta; foreign is
// told of files that are not the spool's. A class that has nothing gets a new epoch.
func Load(f *files.Chain, foreign func(path string)) (State, error) {
	var st State
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return st, fmt.Errorf("spool folder: %w", err)
	}
	var err error
	if st.Meta, st.Bad, err = meta.Load(f.Dir, f.Class); err != nil {
		return st, err
	}
	others, err := f.List()
	if err != nil {
		return st, err
	}
	for _, path := range others {
		if !meta.Owns(filepath.Base(path)) {
			foreign(path)
		}
	}
	// A class that begins writes the same twice before it gives a number out.
	st.young = st.Bad == 1 && st.Gen == 1
	switch {
	case st.Epoch != 0 && st.Bad > 0 && !st.young:
		f.Log.Warn("one copy of the spool's meta is unreadable, a block of numbers is skipped", "class", f.Class.String())
		st.Reserved += classconf.ReserveBlock(f.Class)
	case st.Epoch == 0 && f.Len() > 0:
		if err := st.rebuild(f); err != nil {
			return st, err
		}
	}
	if st.Epoch == 0 {
		st.Meta = meta.Meta{Epoch: meta.NewEpoch()}
		f.Log.Info("new spool", "class", f.Class.String(), "epoch", fmt.Sprintf("%016x", st.Epoch))
	}
	f.Epoch = st.Epoch
	return st, st.lastUsed(f)
}

// lastUsed finds the highest number used. Where the newest file cannot tell, all
// reserved numbers count as used: reading finds out which are there.
func (st *State) lastUsed(f *files.Chain) error {
	if f.Len() == 0 {
		return nil
	}
	newest := f.Newest().First
	db, err := f.Reader(f.Len() - 1)
	if err == nil {
		var last uint64
		if last, err = db.Last(); err == nil {
			st.Used = max(last, newest-1)
			st.Exact = (st.Bad == 0 || st.young) && st.Newest != 0 && newest >= st.Newest
			return nil
		}
		f.CloseReader()
	}
	if !hopeless(err) {
		return err
	}
	f.Log.Error("newest spool segment is damaged", "class", f.Class.String(), "err", err)
	st.Used = max(st.Reserved, newest-1)
	return nil
}

// hopeless tells whether a file will not open the next time either.
func hopeless(err error) bool {
	return errors.Is(err, segment.ErrDamaged) || errors.Is(err, segment.ErrKeyLost)
}

// rebuild makes a meta from the newest segment that can be read, after both copies
// were lost. It skips two blocks of numbers, more than can have been given out.
// Without a readable segment nothing is known of the numbers: the files go to
// quarantine and the class begins anew.
func (st *State) rebuild(f *files.Chain) error {
	for i := f.Len() - 1; i >= 0; i-- {
		db, err := segment.Open(f.At(i).Path, f.Opts)
		if err != nil && !hopeless(err) {
			return err
		} else if err != nil {
			continue
		}
		h := db.Header
		last, err := db.Last()
		_ = db.Close()
		if err != nil || h.Class != f.Class || h.First != f.At(i).First || h.Epoch == 0 {
			continue
		}
		f.Log.Error("spool meta is lost and was rebuilt from a segment", "class", f.Class.String(), "epoch", fmt.Sprintf("%016x", h.Epoch))
		top := max(last, f.Newest().First, h.First)
		st.Meta = meta.Meta{Epoch: h.Epoch, Reserved: top + 2*classconf.ReserveBlock(f.Class), Low: f.At(0).First - 1}
		return nil
	}
	f.Log.Error("spool meta and segments are lost: the class begins anew", "class", f.Class.String(), "segments", f.Len())
	for f.Len() > 0 {
		if err := f.Shelve(f.Len() - 1); err != nil {
			return err
		}
		st.Shelved++
	}
	return nil
}
