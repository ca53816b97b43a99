// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/internal/run"
	"fulmar/schema"
)

const (
	// beat is how often the link is looked at.
	beat = time.Second
	// saveEvery is how often what has passed is written while it runs: so much a power
	// cut can lose, and so much is counted for one.
	saveEvery = 30 * time.Second
	maxKept   = 16 << 10
	// safeTimeout bounds one try to make outputs safe; a valve moves in seconds. Tries
	// follow each other after a second, then after twice that, up to a minute.
	safeTimeout = time.Minute
	retryMost   = time.Minute
	stopGrace   = 5 * time.Second
)

// Deps is what a service works with.
type Deps struct {
	Path string      // file of what has passed
	Up   func() bool // the fleet can be asked
	// Safe brings outputs into their safe states, in this order and each tried even if
	// another fails; all is a safety shutdown, whatever else is named. It is called again
	// until it gives nil.
	Safe func(ctx context.Context, outputs []string, all bool, why string) error
	// Changed is told each change; it must not block.
	Changed func(Status)
	Log     *slog.Logger
}

// Service keeps the policy. Its methods may be called from many goroutines.
type Service struct {
	deps Deps

	mu      sync.Mutex
	m       *machine
	failing string
}

// kept is the file.
type kept struct {
	V       uint8    `cbor:"1,keyasint"`
	Clean   bool     `cbor:"2,keyasint,omitempty"`
	Alone   bool     `cbor:"3,keyasint,omitempty"` // not connected
	DownMs  uint64   `cbor:"4,keyasint,omitempty"`
	AloneMs uint64   `cbor:"5,keyasint,omitempty"`
	Done    []string `cbor:"6,keyasint,omitempty"`
	Stays   []string `cbor:"7,keyasint,omitempty"`
}

// Open takes up what an earlier life of the program has left. A file that cannot be read
// is said in the log, and the board counts as connected until its grace is over.
func Open(cfg Config, deps Deps) *Service {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{deps: deps, m: newMachine(cfg)}
	if err := s.load(); err != nil {
		deps.Log.Error("for how long the board was alone is not known: its leases begin anew", "path", deps.Path, "err", err)
	}
	return s
}

func (s *Service) load() error {
	st, err := os.Stat(s.deps.Path)
	if errors.Is(err, fs.ErrNotExist) || s.deps.Path == "" {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Size() > maxKept {
		return fmt.Errorf("%d bytes, at most %d", st.Size(), maxKept)
	}
	b, err := os.ReadFile(s.deps.Path)
	if err != nil {
		return err
	}
	return s.m.restore(b)
}

// restore takes up what was kept.
func (m *machine) restore(b []byte) error {
	var k kept
	if err := schema.Decode(b, &k); err != nil {
		return err
	}
	if most := uint64(time.Duration(1<<62) / time.Millisecond); k.V != schema.Version || k.DownMs > most || k.AloneMs > most || len(k.Done) > maxAllowances || len(k.Stays) > maxAllowances*maxNames {
		return fmt.Errorf("version %d, this program knows %d; or its numbers cannot be", k.V, schema.Version)
	}
	if m.stays = k.Stays; k.DownMs == 0 && !k.Alone {
		return nil
	}
	lost := saveEvery
	if k.Clean {
		lost = 0
	}
	m.down = time.Duration(k.DownMs)*time.Millisecond + lost
	if !k.Alone {
		return nil // the next pass sees whether the grace is over
	}
	m.alone = time.Duration(k.AloneMs)*time.Millisecond + lost
	for _, n := range k.Done {
		m.done[n] = true
	}
	m.settle()
	return nil
}

func (m *machine) keep(clean bool) ([]byte, error) {
	k := kept{V: schema.Version, Clean: clean, Stays: m.stays, DownMs: uint64(m.down.Milliseconds())}
	if m.state != Connected {
		k.Alone, k.AloneMs = true, uint64(m.alone.Milliseconds())
		k.Done = slices.Sorted(maps.Keys(m.done))
	}
	return schema.Encode(&k)
}

// Update puts another policy in force. What has passed counts for it too.
func (s *Service) Update(cfg Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.m.cfg.Allow {
		if !slices.ContainsFunc(cfg.Allow, func(a Allowance) bool { return reflect.DeepEqual(a, old) }) {
			delete(s.m.done, old.Name)
		}
	}
	s.m.cfg = cfg
	clear(s.m.over)
	if s.m.state != Connected {
		s.m.settle()
	}
}

// Allow says why an actor of the board (rule/NAME, local/USER, key/ID) may not give a
// command now, as a *command.Error; nil if it may.
func (s *Service) Allow(actor, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.allow(actor, name)
}

// Status tells how it stands.
func (s *Service) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.m.status()
	st.Failing = s.failing
	return st
}

// Run keeps the time until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g := run.New(ctx)
	r := running{s: s, g: g, at: time.Now(), paid: make(chan payment), disk: make(chan []byte, 1), wait: beat}
	g.Go("policy", r.loop)
	g.Go("file", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case b := <-r.disk:
				r.write(b)
			}
		}
	})
	err := g.Wait(stopGrace)
	r.write(s.keep(true))
	return err
}

// running is what Run knows beside the machine. Only its loop touches it, but for disk
// and what write needs.
type running struct {
	s      *Service
	g      *run.Group
	at     time.Time // up to which time has passed
	saved  time.Time
	told   string
	paid   chan payment
	disk   chan []byte // cap 1: the newest; a disk that hangs must not stop the clock
	paying bool
	next   time.Time     // not before
	wait   time.Duration // until the try after the next
	failed bool          // the disk takes nothing, and it was said
}

type payment struct {
	times          uint64
	outputs, names []string
	all            bool
	err            error
}

func (r *running) loop(ctx context.Context) error {
	t := time.NewTicker(beat)
	defer t.Stop()
	r.tell()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-r.paid:
			r.took(p)
		case <-t.C:
		}
		r.beat()
	}
}

// beat lets the time pass that has passed, and does what follows of it.
func (r *running) beat() {
	now, up := time.Now(), r.s.deps.Up()
	r.s.mu.Lock()
	r.s.m.pass(now.Sub(r.at), up)
	outputs, names, all := r.s.m.owed()
	times := r.s.m.times
	r.s.mu.Unlock()
	r.at = now
	if len(names) > 0 && !r.paying && !now.Before(r.next) {
		r.paying = true
		p := payment{times: times, outputs: outputs, names: names, all: all}
		r.g.Go("safe", func(ctx context.Context) error { return r.pay(ctx, p) })
	}
	r.tell()
	if now.Sub(r.saved) >= saveEvery && r.runs() {
		r.save()
	}
}

func (r *running) runs() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.s.m.down > 0
}

// pay makes outputs safe beside the clock, which goes on.
func (r *running) pay(ctx context.Context, p payment) error {
	why := "the fleet could not be asked for too long: the lease of " + strings.Join(p.names, ", ") + " is over"
	p.err = func() (err error) {
		defer func() {
			if e := recover(); e != nil {
				err = fmt.Errorf("panic: %v", e)
			}
		}()
		// Not the group's context: what was begun when the program stops gets its time.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), safeTimeout)
		defer cancel()
		return r.s.deps.Safe(ctx, p.outputs, p.all, why)
	}()
	select {
	case r.paid <- p:
	case <-ctx.Done():
		r.s.took(p)
	}
	return nil
}

// took takes how it went.
func (s *Service) took(p payment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing = ""; p.err != nil {
		s.failing = p.err.Error()
		return
	}
	s.m.paid(p.times, p.outputs, p.names, p.all)
}

func (r *running) took(p payment) {
	r.paying = false
	r.s.took(p)
	if r.next = time.Now(); p.err != nil {
		r.next, r.wait = r.next.Add(r.wait), min(2*r.wait, retryMost)
		return
	}
	r.wait = beat
}

// tell tells a change, and writes it down.
func (r *running) tell() {
	st := r.s.Status()
	mark := fmt.Sprint(st.State, st.Stays, st.Failing)
	for _, l := range st.Leases {
		mark += fmt.Sprint(l.Name, l.Over)
	}
	if mark == r.told {
		return
	}
	r.told = mark
	r.save()
	if r.s.deps.Changed != nil {
		r.s.deps.Changed(st)
	}
}

// save has the newest written.
func (r *running) save() {
	r.saved = time.Now()
	b := r.s.keep(false)
	for {
		select {
		case r.disk <- b:
			return
		default:
		}
		select {
		case <-r.disk: // an older one that was not begun
		default:
		}
	}
}

func (s *Service) keep(clean bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.m.keep(clean)
	if err != nil { // numbers and names within bounds: only a broken build gets here
		s.deps.Log.Error("for how long the board is alone cannot be written", "err", err)
	}
	return b
}

func (r *running) write(b []byte) {
	path := r.s.deps.Path
	if path == "" || b == nil {
		return
	}
	err := atomicfile.WriteFile(path, b, 0o600)
	if err != nil && !r.failed {
		r.s.deps.Log.Error("for how long the board is alone is not on the disk: a restart would give its leases back", "path", path, "err", err)
	}
	r.failed = err != nil
}
