// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fulmar/internal/disk"
	"fulmar/ota"
	"fulmar/ota/release"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

var errKilled = errors.New("the process is dead")

// board is what stays of a board when its program ends: the disk, the slots, what came of
// objects, the spool.
type board struct {
	t    *testing.T
	rng  *rand.Rand
	dir  string
	born time.Time
	log  *slog.Logger

	mu    sync.Mutex
	fate  fate
	boot  uint64
	upAt  time.Time // of this boot
	off   time.Duration
	told  []words.State // the spool: what the fleet has, once the board is reachable
	floor uint64
	slots *slots
	net   *network
	warns []string
	runs  int // starts of the program
}

// process is one life of the program. What it does after its death has no effect.
type process struct {
	*board
	disk.OS
	mu   sync.Mutex
	dead bool
	ends context.CancelFunc
	u    *ota.Updater
	up   time.Time
}

func (p *process) alive() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errKilled
	}
	return nil
}

func (p *process) kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.ends()
}

// The disk of a process: nothing is done by a dead one.

func (p *process) Mkdir(path string) error { return p.do(func() error { return p.OS.Mkdir(path) }) }

func (p *process) Create(path string, mode fs.FileMode) (f disk.File, err error) {
	err = p.do(func() error { f, err = p.OS.Create(path, mode); return err })
	if err != nil {
		return nil, err
	}
	return &handle{f, p}, nil
}

func (p *process) Open(path string) (f disk.File, err error) {
	err = p.do(func() error { f, err = p.OS.Open(path); return err })
	if err != nil {
		return nil, err
	}
	return &handle{f, p}, nil
}

func (p *process) Rename(from, to string) error {
	return p.do(func() error { return p.OS.Rename(from, to) })
}

func (p *process) RemoveAll(path string) error {
	return p.do(func() error { return p.OS.RemoveAll(path) })
}

func (p *process) SyncDir(string) error { return p.alive() } // no power is lost here but by the model

func (p *process) do(fn func() error) error {
	if err := p.alive(); err != nil {
		return err
	}
	return fn()
}

type handle struct {
	disk.File
	p *process
}

func (h *handle) Write(b []byte) (n int, err error) {
	err = h.p.do(func() error { n, err = h.File.Write(b); return err })
	return n, err
}

func (h *handle) WriteAt(b []byte, at int64) (n int, err error) {
	err = h.p.do(func() error { n, err = h.File.WriteAt(b, at); return err })
	return n, err
}

func (h *handle) Sync() error { return h.p.alive() }

// clock is the board's: boot and CLOCK_BOOTTIME are true, the wall clock is what fate says.
func (b *board) clock() schema.Clock {
	off := b.fate.clock
	return schema.NewClock(b.boot, time.Since(b.upAt)).WithWall(func() time.Time {
		if off < 0 {
			return time.Unix(int64(time.Since(b.upAt)/time.Second), 0)
		}
		return time.Now().Add(off)
	})
}

// start begins a life of the program.
func (b *board) start(ctx context.Context) *process {
	b.mu.Lock()
	b.runs++
	b.mu.Unlock()
	b.slots.begin(false)
	ctx, cancel := context.WithCancel(ctx)
	p := &process{board: b, ends: cancel, up: time.Now()}
	p.u = ota.New(ota.Config{Dir: filepath.Join(b.dir, "ota"), Clock: b.clock(), Poll: time.Minute, Look: 10 * time.Second}, ota.Deps{
		Installer: func(component string) ota.Installer {
			if component != b.fate.component {
				return nil
			}
			return &installer{p}
		},
		Fetch: b.net.fetcher(p), Apply: p.apply, Gate: p, Floor: p, Unmet: b.fate.unmet, Conditions: b.conditions,
		Tell: p.tell, Warn: func(reason, text string) { b.warns = append(b.warns, reason+": "+text) },
		Free: func() (int64, error) { return b.free(), nil }, Disk: p, Log: b.log,
	})
	go func() {
		err := p.u.Run(ctx)
		if p.alive() == nil && !errors.Is(err, context.Canceled) {
			b.t.Errorf("seed %d: Run: %v", b.fate.seed, err)
		}
		cancel()
	}()
	return p
}

// tell keeps a word in the spool.
func (p *process) tell(s words.State) error {
	if err := p.alive(); err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		p.t.Errorf("seed %d: %v", p.fate.seed, err)
	}
	p.board.mu.Lock()
	defer p.board.mu.Unlock()
	p.told = append(p.told, s)
	return nil
}

// last is the newest word on an attempt.
func (b *board) last(attempt uint64) (s words.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.told {
		if w.Attempt == attempt {
			s = w
		}
	}
	return s
}

func over(s words.State) bool {
	return s.State == words.Committed || s.State == words.RolledBack || s.State == words.Failed
}

// Floor implements ota.Floor.
func (p *process) Floor() (uint64, error) {
	p.board.mu.Lock()
	defer p.board.mu.Unlock()
	return p.floor, nil
}

// Raise implements ota.Floor.
func (p *process) Raise(to uint64) error {
	if err := p.alive(); err != nil {
		return err
	}
	p.board.mu.Lock()
	defer p.board.mu.Unlock()
	if to < p.floor {
		return fmt.Errorf("floor %d to %d", p.floor, to)
	}
	p.floor = to
	return nil
}

// apply is the codec of packed.
func (p *process) apply(_ context.Context, codec, basePath, patchPath, outPath string, want release.Object) error {
	patch, err := os.ReadFile(patchPath)
	if err != nil {
		return err
	}
	if codec == "delta" {
		base, err := os.ReadFile(basePath)
		if from, _ := unpacked(patch, 0); err != nil || sha256.Sum256(base) != from {
			return fmt.Errorf("not the base: %w", err)
		}
	}
	_, out := unpacked(patch, want.Size)
	if p.fate.badPatch {
		out = append([]byte("wrong"), out[5:]...)
	}
	f, err := p.Create(outPath, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(out)
	return errors.Join(err, f.Close())
}

// Before implements ota.Gate.
func (p *process) Before(string) []byte { return []byte(p.slots.runs()) }

// Look implements ota.Gate.
func (p *process) Look(_ string, h release.Health, before []byte) (ota.Verdict, string) {
	if string(before) != oldVersion {
		return ota.Bad, fmt.Sprintf("the notes are %q", before)
	}
	ran := time.Since(p.up)
	switch p.fate.release {
	case sick:
		if ran > 30*time.Second {
			return ota.Bad, "frames are at 30 % of before"
		}
		return ota.Good, ""
	case hangs:
		return ota.Wait, "process: no progress"
	case crashes:
		if p.fate.kind == ota.RestartNone {
			return ota.Bad, "the worker was killed by it three times"
		}
	case flaky:
		if int(ran/(20*time.Second))%2 == 0 {
			return ota.Good, ""
		}
		return ota.Wait, "link: down"
	}
	if ran < p.fate.warmUp {
		return ota.Wait, "process: starting"
	}
	return ota.Good, ""
}

// conditions is what fate has in the way.
func (b *board) conditions(_ string, m ota.Moment) (out []ota.Refusal) {
	since := time.Since(b.born)
	if m != ota.ToGoBack && since < b.fate.windowAt {
		out = append(out, ota.Refusal{Reason: words.Window, Text: "opens at two", Passes: true})
	}
	if m == ota.ToSwitch && since < b.fate.busyUntil {
		out = append(out, ota.Refusal{Reason: words.Busy, Text: "valve 2 moves", Passes: true})
	}
	return out
}

func (b *board) free() int64 {
	if time.Since(b.born) < b.fate.fullUntil {
		return 100
	}
	return 1 << 30
}
