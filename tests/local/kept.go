// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fulmar/ota/slot"
)

// What fulmard.service says, but for the pause of five seconds: a person waits here.
const (
	startBurst   = 6
	startWindow  = 2 * time.Minute
	restartPause = 100 * time.Millisecond
)

// execWait is how long a launcher may take to become what it starts.
const execWait = 2 * time.Second

// Kept is a program that is started again whenever it ends, as systemd does with
// Restart=always, until it is stopped or has ended too often.
type Kept struct {
	begin func() (*Proc, error)
	say   func(p *Proc, ended error) // it was started again

	stop sync.Once
	end  chan struct{} // closed: it shall end
	done chan struct{} // closed: it has ended

	mu  sync.Mutex
	now *Proc

	took time.Duration // valid after done
	err  error
}

// keep starts a program and keeps it running.
func keep(begin func() (*Proc, error), say func(p *Proc, ended error)) (*Kept, error) {
	p, err := begin()
	if err != nil {
		return nil, err
	}
	k := &Kept{begin: begin, say: say, now: p, end: make(chan struct{}), done: make(chan struct{})}
	go k.run(p)
	return k, nil
}

func (k *Kept) run(p *Proc) {
	defer close(k.done)
	starts := []time.Time{time.Now()}
	for {
		select {
		case <-k.end:
			k.took, k.err = p.Stop()
			return
		case <-p.Done():
		}
		for len(starts) > 0 && time.Since(starts[0]) > startWindow {
			starts = starts[1:]
		}
		if len(starts) >= startBurst {
			k.err = fmt.Errorf("%s ended %d times within %v, the last time: %w", p.Name, len(starts), startWindow, cause(p))
			return
		}
		select {
		case <-k.end:
			return
		case <-time.After(restartPause):
		}
		was := cause(p)
		next, err := k.begin()
		if err != nil {
			k.err = err
			return
		}
		p = next
		starts = append(starts, time.Now())
		k.mu.Lock()
		k.now = p
		k.mu.Unlock()
		k.say(p, was)
	}
}

// errInOrder: a program ended with 0.
var errInOrder = errors.New("it ended in order")

func cause(p *Proc) error {
	if p.err == nil {
		return errInOrder
	}
	return p.err
}

// Done is closed when the program has ended for good.
func (k *Kept) Done() <-chan struct{} { return k.done }

// Proc is the program of the moment.
func (k *Kept) Proc() *Proc {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// Output is the last part of what the newest one printed.
func (k *Kept) Output() string { return k.Proc().Output() }

// Stop ends the program as [Proc.Stop] does, and for good.
func (k *Kept) Stop() (time.Duration, error) {
	k.stop.Do(func() { close(k.end) })
	<-k.done
	return k.took, k.err
}

// SlotsDir is where the programs of a board lie that runs out of slots.
func (s *Site) SlotsDir(name string) string { return filepath.Join(s.Dir, name+".slots") }

// Seed brings the fulmard that was built into a slot of a board, as its package would, and
// says in a line what was done. One that came over the air and is not older stays.
func (s *Site) Seed(name, version string) (did string, err error) {
	seed := s.seedDir(name)
	b, err := os.ReadFile(filepath.Join(s.Bin, slot.Agent))
	if err == nil {
		err = errors.Join(os.MkdirAll(seed, 0o755), os.MkdirAll(s.SlotsDir(name), 0o755))
	}
	if err == nil {
		// A launcher may have it open as the last resort.
		err = errors.Join(os.WriteFile(filepath.Join(seed, slot.Agent+".new"), b, 0o755), os.Rename(filepath.Join(seed, slot.Agent+".new"), filepath.Join(seed, slot.Agent)))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(seed, "release"), []byte(version+"\n"), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("seed %s: %w", name, err)
	}
	store := slot.Open(s.SlotsDir(name))
	if did, err = store.Seed(seed); err != nil {
		return "", err
	}
	st, _, err := store.State()
	if err != nil {
		return "", err
	}
	sl, err := store.Get(st.Current)
	if err != nil || sl.Origin != slot.FromDeb || !st.Trial {
		return did, err
	}
	// What somebody has just built is run, also by one who stops it three times before the
	// trial of a package would be over.
	_, err = store.Confirm(sl.ID)
	return strings.ReplaceAll(did, ", on trial; it goes back to", "; before it ran"), err
}

func (s *Site) seedDir(name string) string { return filepath.Join(s.Dir, name+".seed") }

// KeepBoard starts fulmard with a config of [Site.PrepareBoard] out of its slots, see
// [Site.Seed], and starts it again when it ends. said is told in a line each time.
func (s *Site) KeepBoard(name, config string, said func(string)) (*Kept, error) {
	f, err := openLog(filepath.Join(s.Dir, name+".log"))
	if err != nil {
		return nil, err
	}
	return keep(func() (*Proc, error) {
		return start(slot.Agent, filepath.Join(s.Bin, "fulmar-launch"), f,
			"run", "--state", s.SlotsDir(name), "--seed", s.seedDir(name), slot.Agent, "run", "--config", config)
	}, func(p *Proc, ended error) {
		said(fmt.Sprintf("fulmard of %s: %v; it was started again, out of %s", name, ended, p.slot()))
	})
}

// slot is where a program runs from, once its launcher has become it.
func (p *Proc) slot() string {
	for end := time.Now().Add(execWait); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID()))
		if err != nil {
			break
		}
		if filepath.Base(exe) == slot.Agent {
			return "slot " + filepath.Base(filepath.Dir(exe))
		}
	}
	return "no slot: it has ended already"
}
