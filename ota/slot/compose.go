// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// Worker is the program that runs from a slot as another user.
const Worker = "fulmar-infer"

const maxParts = 16 // versions of parts; we have two

// Part is the version of a part of the slot, "agent" or "worker": that of the slot where
// it does not say.
func (sl *Slot) Part(name string) string {
	if v := sl.Parts[name]; v != "" {
		return v
	}
	return sl.Version
}

// Sweep removes all slots but the current one, the previous one and those in keep.
func (s *Store) Sweep(keep ...string) error {
	if err := s.Own(); err != nil {
		return err
	}
	unlock, err := s.lock(writeLock, writeWait)
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(s.clean(), s.prune(keep...))
}

// Retry forgets that the choice went back from a slot, because it is to be tried again.
// Whoever looks then knows a new going back from that one.
func (s *Store) Retry(id string) error {
	_, err := s.change(func(st *State) error {
		if st.Fall != nil && st.Fall.From == id && st.Current != id {
			st.Fall = nil
		}
		return nil
	})
	return err
}

// ours tells that a path is a file of a slot here.
func (s *Store) ours(path string) bool {
	dir := filepath.Dir(path)
	return filepath.Dir(dir) == filepath.Join(s.dir, slotsDir) && validID(filepath.Base(dir))
}

// share gives a file of another slot a second name; false where the file system cannot.
func (s *Store) share(to, from string) (bool, error) {
	err := s.disk.Link(from, to)
	for _, cannot := range []error{syscall.EXDEV, syscall.EMLINK, syscall.EPERM, syscall.EOPNOTSUPP} {
		if errors.Is(err, cannot) {
			return false, nil
		}
	}
	return err == nil, err
}

// modeOf is the mode that a file of a slot has: what was brought by pieces lies there
// without any right to run it.
func modeOf(name string, of fs.FileMode) fs.FileMode {
	if name == Agent || name == Worker || of&0o111 != 0 {
		return 0o755
	}
	return 0o644
}
