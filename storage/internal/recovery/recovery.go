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
	Begun   uint64 // first number of the newest file: none below it is given out again
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
// reserved numbers count as used: reading finds out which are there. A file is begun
// before the meta tells what was settled below it, so the name of an empty one says
// nothing of those numbers: they may be in no file, and nobody was told of them.
func (st *State) lastUsed(f *files.Chain) error {
	if f.Len() == 0 {
		return nil
	}
	st.Begun = f.Newest().First
	last, err := lastIn(f, f.Len()-1)
	switch {
	case hopeless(err):
		f.Log.Error("newest spool segment is damaged", "class", f.Class.String(), "err", err)
		st.Used = max(st.Reserved, st.Begun-1)
		return nil
	case err != nil:
		return err
	}
	st.Exact = (st.Bad == 0 || st.young) && st.Newest != 0 && st.Begun >= st.Newest
	if st.Used = last; last < st.Begun {
		st.Used, err = lastBelow(f)
	}
	return err
}

// lastBelow finds the highest number in the files before the newest one. In a file
// that cannot tell it may be any: reading finds out.
func lastBelow(f *files.Chain) (uint64, error) {
	for i := f.Len() - 1; i > 0; i-- {
		top := f.At(i).First - 1
		switch last, err := lastIn(f, i-1); {
		case hopeless(err):
			return top, nil
		case err != nil:
			return 0, err
		case last > 0: // a commit that failed may have left more, see chain.Class.cutOff
			return min(last, top), nil
		}
	}
	return f.At(0).First - 1, nil
}

// lastIn is the highest number in the i-th file, 0 if there is none.
func lastIn(f *files.Chain, i int) (uint64, error) {
	db, err := f.Reader(i)
	if err != nil {
		return 0, err
	}
	last, err := db.Last()
	if err != nil {
		f.CloseReader()
	}
	return last, err
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
