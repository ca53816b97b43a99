// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"fulmar/ota"
	"fulmar/ota/release"
)

const (
	oldVersion = "1.0"
	newVersion = "2.0"
)

// slots are the versions of a component as they lie on the board, with a launcher that
// counts starts on trial. Each change is whole or not at all.
type slots struct {
	mu       sync.Mutex
	kind     ota.Restart // what a switch takes
	staged   map[string]string
	chosen   string // version
	live     string // version that runs: what was chosen at the last start
	previous string
	trial    bool
	tries    int
	fell     string
	why      string
	shadow   string
	dir      string
	files    map[string][]byte // of what runs
}

func (s *slots) runs() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// begin is a start: of the program, or of the board.
func (s *slots) begin(board bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kind != ota.RestartNone && (s.kind == ota.RestartMachine) != board {
		return
	}
	if s.kind != ota.RestartNone && s.trial {
		if s.tries++; s.tries > 3 {
			s.fall("not confirmed in 3 starts")
		}
	}
	s.live = s.chosen
}

func (s *slots) fall(why string) {
	s.fell, s.why, s.chosen, s.trial, s.tries, s.previous = s.chosen, why, s.previous, false, 0, ""
}

// installer is what a process has of the slots.
type installer struct{ p *process }

func (i *installer) with(fn func(s *slots) error) error {
	if err := i.p.alive(); err != nil {
		return err
	}
	s := i.p.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	return fn(s)
}

func (i *installer) Running(context.Context) (v string, err error) {
	return v, i.with(func(s *slots) error { v = s.live; return nil })
}

func (i *installer) Stage(_ context.Context, c *release.Component, paths map[string]string) (token string, err error) {
	for _, f := range c.Files {
		b, err := os.ReadFile(paths[f.Path])
		if err != nil || release.Hash(sha256.Sum256(b)) != f.SHA256 {
			i.p.t.Errorf("seed %d: %s is staged and is not whole: %v", i.p.fate.seed, f.Path, err)
		}
	}
	return token, i.with(func(s *slots) error {
		if i.p.board.free() < 1000 {
			return syscall.ENOSPC
		}
		token = "slot-" + c.Version
		s.staged[token] = c.Version
		return nil
	})
}

func (i *installer) Base(_ context.Context, sha release.Hash) (path string, err error) {
	return path, i.with(func(s *slots) error {
		for name, b := range s.files {
			if release.Hash(sha256.Sum256(b)) == sha {
				path = filepath.Join(s.dir, name)
				return nil
			}
		}
		return ota.ErrNoBase
	})
}

func (i *installer) Switch(_ context.Context, token string) (r ota.Restart, err error) {
	return r, i.with(func(s *slots) error {
		v, ok := s.staged[token]
		if !ok {
			return fmt.Errorf("no %s", token)
		}
		if s.chosen != v {
			s.previous, s.chosen, s.trial, s.tries, s.fell = s.chosen, v, true, 0, ""
		}
		if s.kind == ota.RestartNone {
			s.live = s.chosen
		}
		if s.live != s.chosen {
			r = s.kind
		}
		return nil
	})
}

func (i *installer) Look(_ context.Context, token string) (st ota.Standing, why string, err error) {
	return st, why, i.with(func(s *slots) error {
		v, ok := s.staged[token]
		switch {
		case !ok:
			return fmt.Errorf("no %s", token)
		case s.chosen == v && s.live != v:
			st = ota.NotYet
		case s.chosen == v && s.trial:
			st = ota.OnTrial
		case s.chosen == v:
			st = ota.InForce
		case s.fell == v:
			st, why = ota.Fallen, s.why
		}
		return nil
	})
}

func (i *installer) Confirm(_ context.Context, token string) error {
	return i.with(func(s *slots) error {
		if s.chosen != s.staged[token] || s.live != s.chosen {
			return errors.New("it does not run")
		}
		s.trial, s.tries = false, 0
		return nil
	})
}

func (i *installer) Back(_ context.Context, token, why string) (r ota.Restart, err error) {
	return r, i.with(func(s *slots) error {
		if s.chosen == s.staged[token] {
			if s.previous == "" {
				return errors.New("nothing to go back to")
			}
			s.fall(why)
		}
		if s.kind == ota.RestartNone {
			s.live = s.chosen
		}
		if s.live != s.chosen {
			r = s.kind
		}
		return nil
	})
}

func (i *installer) Sweep(_ context.Context, keep []string) error {
	return i.with(func(s *slots) error {
		keeps := map[string]bool{}
		for _, k := range keep {
			keeps[k] = true
		}
		for token, v := range s.staged {
			if !keeps[token] && v != s.chosen && v != s.previous {
				delete(s.staged, token)
			}
		}
		return nil
	})
}

func (i *installer) Space(_ context.Context, c *release.Component) (need, free int64, err error) {
	for _, f := range c.Files {
		need += f.Size
	}
	return need, i.p.board.free(), i.p.alive()
}

func (i *installer) Shadow(_ context.Context, token string) error {
	return i.with(func(s *slots) error { s.shadow = s.staged[token]; return nil })
}
