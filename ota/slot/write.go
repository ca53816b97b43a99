// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"fulmar/internal/disk"
)

const (
	writeLock = ".write.lock" // one writer of slots at a time
	newDir    = ".new"        // in slots: a slot that is being written
)

// writeWait is how long a writer waits for another one: writing a slot takes seconds.
const writeWait = time.Minute

// Write puts a version beside the others: files maps their names in the slot to the
// paths that they are copied from. The slot is durable when Write returns, and nothing
// of it is there before. The same content under the same version is the slot that is
// there already. It does not run before [Store.Switch]; slots that neither run nor are
// where it goes back to are removed, so that with the new one there are at most three.
//
// Where it does not fit, a *[NoSpaceError] says how much is missing and nothing is left.
func (s *Store) Write(version, origin string, files map[string]string) (Slot, error) {
	return s.Add(Slot{Version: version, Origin: origin}, files)
}

// Add is [Store.Write] for a slot of parts: of sl count Version, Origin, Parts and, where it
// has some, Files: those are what the files have to be. A file that lies in another slot is
// not copied, it gets a second name: what is not new costs no bytes. Slots in keep are not
// removed.
func (s *Store) Add(sl Slot, files map[string]string, keep ...string) (Slot, error) {
	wants := sl.Files
	sl.V, sl.Files = 1, map[string]File{}
	for name, path := range files {
		f, err := source(name, path)
		if want, ok := wants[name]; err == nil && ok && f != want {
			err = fmt.Errorf("%s is not what it should be, %d bytes with SHA-256 %s", path, want.Size, want.SHA256)
		}
		if err != nil {
			return Slot{}, fmt.Errorf("write slot %s: %w", sl.Version, err)
		}
		sl.Files[name] = f
	}
	if err := sl.valid(); err != nil {
		return Slot{}, fmt.Errorf("write slot: %w", err)
	}
	sl.ID = makeID(sl.Version, sl.Files)
	unlock, err := s.lock(writeLock, writeWait)
	if err != nil {
		return Slot{}, err
	}
	defer unlock()
	if err := s.clean(); err != nil {
		return Slot{}, fmt.Errorf("write slot %s: %w", sl.ID, err)
	}
	if s.Verify(sl.ID) == nil {
		have, err := s.Get(sl.ID)
		return have, err
	}
	if err := s.prune(append(keep, sl.ID)...); err != nil {
		return Slot{}, err
	}
	if err := s.write(sl, files); err != nil {
		return Slot{}, errors.Join(fmt.Errorf("write slot %s: %w", sl.ID, s.full(err, sl, files)), s.clean())
	}
	return sl, nil
}

// source looks at a file that a slot is to be made of.
func source(name, path string) (File, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return File{}, err
	}
	if !fi.Mode().IsRegular() {
		return File{}, fmt.Errorf("%s is no regular file", path)
	}
	if err := validFile(name, fi.Size()); err != nil {
		return File{}, err
	}
	return hashFile(path)
}

// clean makes the folder of slots and removes what a writer left that was cut off.
func (s *Store) clean() error {
	dir := filepath.Join(s.dir, slotsDir)
	if err := s.disk.Mkdir(dir); err == nil {
		if err := s.disk.SyncDir(s.dir); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.disk.RemoveAll(filepath.Join(dir, newDir))
}

func (s *Store) write(sl Slot, files map[string]string) error {
	dir := filepath.Join(s.dir, slotsDir)
	if err := space(dir, s.fresh(sl, files), len(files)+2); err != nil {
		return err
	}
	tmp := filepath.Join(dir, newDir)
	if err := s.disk.Mkdir(tmp); err != nil {
		return err
	}
	for name, path := range files {
		if err := s.bring(filepath.Join(tmp, name), path, sl.Files[name]); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(sl, "", "  ")
	if err != nil {
		return err
	}
	if err := disk.Put(s.disk, filepath.Join(tmp, slotFile), 0o644, append(b, '\n')); err != nil {
		return err
	}
	if err := s.disk.SyncDir(tmp); err != nil {
		return err
	}
	if err := s.remove(sl.ID); err != nil { // one of this name that is damaged
		return err
	}
	if err := s.disk.Rename(tmp, filepath.Join(dir, sl.ID)); err != nil {
		return err
	}
	return s.disk.SyncDir(dir)
}

// bring gives a file that another slot has a second name, and copies any other.
func (s *Store) bring(to, from string, want File) error {
	if s.ours(from) {
		if shared, err := s.share(to, from); shared || err != nil {
			return err
		}
	}
	return s.copy(to, from, want)
}

// copy copies a file and makes its content durable.
func (s *Store) copy(to, from string, want File) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := s.disk.Create(to, modeOf(filepath.Base(to), fi.Mode()))
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(in, maxFile+1))
	if err == nil {
		err = out.Sync()
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if (File{hex.EncodeToString(h.Sum(nil)), n}) != want {
		return fmt.Errorf("%s changed while it was copied", from)
	}
	return nil
}

// fresh is how many bytes a slot takes beside what is there.
func (s *Store) fresh(sl Slot, files map[string]string) (n int64) {
	for name, path := range files {
		if !s.ours(path) {
			n += sl.Files[name].Size
		}
	}
	return n
}

// full says of an error by a full disk how much is missing.
func (s *Store) full(err error, sl Slot, files map[string]string) error {
	var known *NoSpaceError
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) || errors.As(err, &known) {
		return err
	}
	cerr := s.clean() // what was written so far counts as free again
	if serr := space(filepath.Join(s.dir, slotsDir), s.fresh(sl, files), len(sl.Files)+2); serr != nil {
		return errors.Join(serr, cerr)
	}
	return errors.Join(err, cerr) // a quota, or somebody else took the space for a moment
}

// prune removes all slots but the current one, the previous one and keep.
func (s *Store) prune(keep ...string) error {
	st, note, err := s.State()
	if err != nil {
		return err
	}
	if note != "" {
		return nil // the choice is not sure: nothing is thrown away on a guess
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	keep = append(keep, st.Current, st.Previous, s.link())
	for _, id := range names {
		if !slices.Contains(keep, id) {
			if err := s.remove(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// remove takes a slot away. A power cut on the way leaves one that is not whole: none to
// [Store.Get], and gone with the next write.
func (s *Store) remove(id string) error {
	if err := s.disk.RemoveAll(filepath.Join(s.dir, slotsDir, id)); err != nil {
		return fmt.Errorf("remove slot %s: %w", id, err)
	}
	return nil
}
