// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"fulmar/ota/install/conf"
	"fulmar/ota/install/programs"
	"fulmar/ota/slot"
	"fulmar/schema"
)

// sums are the SHA-256 of files. A file is read again when anything of it has changed that
// the kernel notes at a write: its time of change cannot be set by a program.
type sums struct {
	mu    sync.Mutex
	known map[string]summed
}

type summed struct {
	ino    uint64
	size   int64
	change syscall.Timespec
	sum    []byte
	used   bool
}

// begin and end are around the files of one report: what it has no use for is forgotten.
func (s *sums) begin() {
	s.mu.Lock()
	if s.known == nil {
		s.known = map[string]summed{}
	}
}

func (s *sums) end() {
	for path, k := range s.known {
		if !k.used {
			delete(s.known, path)
			continue
		}
		k.used = false
		s.known[path] = k
	}
	s.mu.Unlock()
}

// of gives that of a file; nil for what is no file or cannot be read.
func (s *sums) of(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	k := summed{size: fi.Size(), used: true}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		k.ino, k.change = st.Ino, st.Ctim
	}
	if old, ok := s.known[path]; ok && old.ino == k.ino && old.size == k.size && old.change == k.change {
		old.used = true
		s.known[path] = old
		return old.sum
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil
	}
	k.sum = h.Sum(nil)
	s.known[path] = k
	return k.sum
}

// files are the SHA-256 of what is in force of the worker and of the config that came over
// the air, by component/name: that of fulmard itself and of models is known otherwise.
func (p *parts) files() map[string][]byte {
	out := map[string][]byte{}
	add := func(component, dir, name string) {
		key := component + "/" + name
		if len(out) >= schema.MaxReportFiles || len(key) > schema.MaxName { // what does not fit is not asked for
			return
		}
		if sum := p.sums.of(filepath.Join(dir, name)); sum != nil {
			out[key] = sum
		}
	}
	p.sums.begin()
	defer p.sums.end()
	if p.programs != nil && p.site[programs.Worker] == nil {
		if st, _, err := p.slots.State(); err == nil {
			if sl, err := p.slots.Get(st.Current); err == nil {
				for name := range sl.Files {
					if name != slot.Agent {
						add(programs.Worker, p.slots.Path(st.Current, ""), name)
					}
				}
			}
		}
	}
	if p.conf != nil && p.site[conf.Component] == nil {
		if dir, _ := p.conf.InForce(); dir != "" {
			names, _ := os.ReadDir(dir) // what cannot be read is not told
			for _, n := range names {
				add(conf.Component, dir, n.Name())
			}
		}
	}
	return out
}
