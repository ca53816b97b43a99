// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package salvage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fulmar/schema"
	"fulmar/storage/internal/age"
	"fulmar/storage/internal/meta"
	"fulmar/storage/internal/owner"
	"fulmar/storage/internal/ranges"
	"fulmar/storage/internal/segment"
	"fulmar/storage/vault"
)

// ErrNoSpool says that a folder is no spool.
var ErrNoSpool = errors.New("no spool")

// Access is what opens encrypted segments. Either may be nil.
type Access struct {
	Holder   vault.Holder
	Recovery *vault.RecoveryKey
}

// Spool is what lies in a spool's folder. It is a look at one moment.
type Spool struct {
	Dir      string
	Owner    string       // the board whose records these are; "": it is not known
	InUse    bool         // a running fulmard holds it: what is being written now may read as damaged
	Keys     []vault.Info // of the keyring, oldest first; empty: it was never encrypted
	Classes  []Class      // those that have a folder, most urgent first
	Foreign  []string     // files that are not the spool's
	Problems []string     // what is wrong with the spool as a whole

	keys *vault.Keys
}

// Class is one class of the spool.
type Class struct {
	ID       schema.Class
	Epoch    uint64 // 0: no copy of its meta can be read
	Acked    uint64 // all numbers up to it are settled
	Reserved uint64 // no number above it was given out
	Segments []Segment
	Problems []string // what is wrong with its meta and its folder

	done ranges.Settled
}

// Segment is one file of a class.
type Segment struct {
	Path        string
	First       uint64 // lowest number it may hold, by its name
	Bytes       int64  // on disk
	Quarantined bool   // the board could not read it, and told its records as lost

	last uint64 // highest number it can hold; 0: not known
}

// Open lists a spool's folder. It fails only where the folder is no spool or
// cannot be read at all; everything else is a problem that the result names.
func Open(dir string, a Access) (*Spool, error) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	s := &Spool{Dir: dir, InUse: inUse(filepath.Join(dir, "lock"))}
	quarantine := false
	for _, e := range ents {
		name := e.Name()
		switch id, err := schema.ParseClass(name); {
		case err == nil && e.IsDir():
			s.Classes = append(s.Classes, Class{ID: id})
		case name == "quarantine" && e.IsDir():
			quarantine = true
		case vault.Owns(name), name == "lock", name == "balloon", name == "starts", name == owner.Name, name == age.Name, name == "segments.bad":
		default:
			s.Foreign = append(s.Foreign, filepath.Join(dir, name))
		}
	}
	if len(s.Classes) == 0 {
		hint := "it has no folder alarm, event, metric or snapshot"
		if fi, err := os.Stat(filepath.Join(dir, "spool")); err == nil && fi.IsDir() {
			hint += "; try " + filepath.Join(dir, "spool")
		}
		return nil, fmt.Errorf("%w: %s: %s", ErrNoSpool, dir, hint)
	}
	slices.SortFunc(s.Classes, func(a, b Class) int { return int(a.ID) - int(b.ID) })
	for i := range s.Classes {
		s.load(&s.Classes[i])
	}
	if quarantine {
		s.listQuarantine(filepath.Join(dir, "quarantine"))
	}
	if s.Owner, err = owner.Read(dir); err != nil {
		s.Problems = append(s.Problems, err.Error())
	}
	s.openKeys(a)
	return s, nil
}

func (s *Spool) openKeys(a Access) {
	keys, err := vault.OpenReadOnly(s.Dir, a.Holder, a.Recovery)
	if err != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("keyring: %v", err))
		return
	}
	s.keys, s.Keys = keys, keys.List()
	if st := keys.State(); st.Damaged {
		s.Problems = append(s.Problems, "keyring: neither copy can be read, so no key can open what is encrypted")
	} else if st.Unverified != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("keyring: %v", st.Unverified))
	}
}

// load reads a class's meta and lists its files.
func (s *Spool) load(c *Class) {
	dir := filepath.Join(s.Dir, c.ID.String())
	problem := func(format string, args ...any) { c.Problems = append(c.Problems, fmt.Sprintf(format, args...)) }
	m, bad, err := meta.Load(dir, c.ID)
	switch {
	case err != nil:
		problem("meta: %v", err)
	case m.Epoch == 0:
		problem("meta: no copy can be read; all records count as waiting")
	case bad > 0:
		problem("meta: one of two copies is damaged; the other is used")
	}
	if err == nil && m.Epoch != 0 {
		c.Epoch, c.Acked, c.Reserved, c.done = m.Epoch, m.Low, m.Reserved, ranges.New(m.Low, m.Above)
	}
	files, unfinished, foreign, err := segment.Scan(dir)
	if err != nil {
		problem("%v", err)
		return
	}
	if len(unfinished) > 0 { // it holds no record: a power loss while it was made
		s.Foreign = append(s.Foreign, unfinished...)
	}
	for _, path := range foreign {
		if !meta.Owns(filepath.Base(path)) {
			s.Foreign = append(s.Foreign, path)
		}
	}
	for i, f := range files {
		sg := Segment{Path: f.Path, First: f.First, Bytes: f.Bytes}
		if i+1 < len(files) {
			sg.last = files[i+1].First - 1
		}
		c.Segments = append(c.Segments, sg)
	}
}

// listQuarantine adds the files in quarantine to their classes.
func (s *Spool) listQuarantine(dir string) {
	ents, err := os.ReadDir(dir)
	if err != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("quarantine: %v", err))
		return
	}
	for _, e := range ents {
		path := filepath.Join(dir, e.Name())
		class, base, _ := strings.Cut(e.Name(), "-")
		id, err := schema.ParseClass(class)
		first, ok := segment.ParseName(base)
		i := slices.IndexFunc(s.Classes, func(c Class) bool { return c.ID == id })
		fi, ierr := e.Info()
		if err != nil || !ok || i < 0 || ierr != nil || !fi.Mode().IsRegular() {
			s.Foreign = append(s.Foreign, path)
			continue
		}
		c := &s.Classes[i]
		c.Segments = append(c.Segments, Segment{Path: path, First: first, Bytes: fi.Size(), Quarantined: true})
		slices.SortStableFunc(c.Segments, func(a, b Segment) int {
			switch {
			case a.First < b.First:
				return -1
			case a.First > b.First:
				return 1
			}
			return 0
		})
	}
}

// inUse tells whether a process holds the spool's lock. It lets go at once.
func inUse(lock string) bool {
	f, err := os.OpenFile(lock, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
