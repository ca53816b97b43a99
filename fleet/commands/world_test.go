// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/command/dispatch"
	"fulmar/fleet/access"
	"fulmar/fleet/commands/shown"
	"fulmar/fleet/commands/spec"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/commandrows"
	"fulmar/schema"
	"fulmar/schema/rest"
	"fulmar/storage/journal"
)

var (
	errDead = errors.New("the power is gone")
	errLost = errors.New("lost on the way")
)

// world is a fleet with a real database, and boards with real dispatchers and journals,
// with a link between them that loses, doubles, delays and reorders what it carries.
type world struct {
	t    *testing.T
	dir  string
	mu   sync.Mutex
	r    *rand.Rand
	calm bool // the link is whole
	// direct: it takes no time either, and ping does none.
	direct bool
	n      int
	reg    *registry.Registry
	srv    *server
	// boards by name.
	boards map[string]*board
	log    *slog.Logger
}

func newWorld(t *testing.T, seed uint64, names ...string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), r: rand.New(rand.NewPCG(seed, 1)), boards: map[string]*board{}, log: slog.New(slog.DiscardHandler)}
	w.openRegistry(filepath.Join(w.dir, "fleet"))
	for _, n := range names {
		b := &board{w: w, name: n, effects: map[command.ID][]effect{}, final: map[command.ID]command.Result{}, path: filepath.Join(w.dir, n+".journal")}
		w.boards[n] = b
		b.start()
	}
	return w
}

func (w *world) openRegistry(dir string) {
	reg, err := registry.Open(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	// Nothing here survives a power cut of this machine, and nothing has to.
	if _, err := reg.Database().Write.Exec(`PRAGMA synchronous = off`); err != nil {
		w.t.Fatal(err)
	}
	w.reg = reg
}

func (w *world) chance(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.calm && w.r.IntN(n) == 0
}

func (w *world) delay() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.direct {
		return 0
	}
	if w.calm {
		w.n++ // so that what leaves first comes first
		return 10*time.Millisecond + time.Duration(w.n)*time.Microsecond
	}
	return time.Duration(w.r.IntN(300)) * time.Millisecond
}

func (w *world) intN(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.r.IntN(n)
}

// server is one life of the fleet's part.
type server struct {
	*Commands
	w      *world
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	dead bool
	left int // steps until it dies; 0 never
}

// step is a point at which the server may die; it says whether it lives.
func (s *server) step() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left > 0 {
		if s.left--; s.left == 0 {
			s.dead = true
		}
	}
	return !s.dead
}

// mortal are rows under a server that may die.
type mortal struct {
	Rows
	s *server
}

// Write may find the server dead before it, or after the commit.
func (m mortal) Write(ctx context.Context, c *commandrows.Change) error {
	if !m.s.step() {
		return errDead
	}
	err := m.Rows.Write(ctx, c)
	if !m.s.step() {
		return errDead
	}
	return err
}

func (s *server) SendCommand(tenant, name, id string, envelope []byte) error {
	b := s.w.boards[name]
	if !s.step() || tenant != "default" || b == nil || !b.connected(s) {
		return ErrAway
	}
	for n := 1; n > 0; n-- {
		if s.w.chance(8) {
			continue
		}
		if s.w.chance(8) {
			n++ // comes twice
		}
		d := s.w.delay()
		go func() {
			time.Sleep(d)
			b.hear(envelope)
		}()
	}
	return nil
}

func (s *server) Boards(_ context.Context, by access.Caller, q string) (out []string, _ error) {
	for n := range s.w.boards {
		if (q == "" || q == "all") && (by.Boards == "" || by.Boards == n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (s *server) Kinds(context.Context, string) (map[string][]string, error) {
	return map[string][]string{"b1": {"set", "pulse", "cancel"}, "b2": {"set"}}, nil
}

// start opens the fleet's part, as at the start of a server.
func (w *world) start() {
	w.t.Helper()
	s := &server{w: w, done: make(chan struct{})}
	c, err := New(context.Background(), Config{
		Rows: mortal{w.reg.Commands(), s}, Sign: func(p []byte) ([]byte, error) { return p, nil }, Courier: s, Fleet: s, Approve: []string{"release"}, Log: w.log,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.Commands, s.cancel, w.srv = c, cancel, s
	go func() { _ = c.Run(ctx); close(s.done) }()
}

// kill ends the server without a word.
func (w *world) kill() {
	w.srv.mu.Lock()
	w.srv.dead = true
	w.srv.mu.Unlock()
	w.srv.cancel()
	<-w.srv.done
	for _, b := range w.boards {
		b.unplug()
	}
}

// close ends all, for the end of a test.
func (w *world) close() {
	w.kill()
	for _, b := range w.boards {
		b.stop()
	}
	_ = w.reg.Close()
}

type effect struct {
	call  command.Call
	begun uint64
}

// board is one board: its disk, its outputs, and the program on it.
type board struct {
	w    *world
	name string
	path string

	mu      sync.Mutex
	d       *dispatch.Dispatcher
	j       *journal.Journal
	halt    context.CancelFunc
	done    chan struct{}
	dead    bool
	mute    bool    // its words are lost
	to      *server // connected to; nil: to nobody
	effects map[command.ID][]effect
	order   []effect
	final   map[command.ID]command.Result // its own last words
	boot    uint64
}

// Append, Rewrite and Size are its journal: a real one, until the power goes.
func (b *board) Append(entries ...[]byte) error {
	if b.isDead() {
		return errDead
	}
	return b.j.Append(entries...)
}

func (b *board) Rewrite(entries [][]byte) error {
	if b.isDead() {
		return errDead
	}
	return b.j.Rewrite(entries)
}

func (b *board) Size() int64 { return b.j.Size() }

func (b *board) isDead() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dead
}

func (b *board) connected(s *server) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.to == s
}

func (b *board) unplug() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = nil
}

// plug connects to the server that there is.
func (b *board) plug() {
	b.mu.Lock()
	s := b.w.srv
	b.to = s
	b.mu.Unlock()
	s.Hello("default", b.name)
}

func (b *board) start() {
	j, entries, err := journal.Open(b.path)
	if err != nil {
		b.w.t.Error(err)
		return
	}
	b.mu.Lock()
	b.j, b.dead = j, false
	b.boot++
	b.mu.Unlock()
	d, err := dispatch.New(dispatch.Config{
		Address: func() (string, string) { return "default", b.name }, Open: func(e []byte) ([]byte, error) { return e, nil },
		Now:   func() (uint64, bool) { return uint64(time.Now().UnixMilli()), true },
		Clock: schema.BootClock(b.boot), Handlers: b.handlers(), Log: b, Entries: entries, Tell: b.tell, Slog: b.w.log,
	})
	if err != nil {
		b.w.t.Error(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	b.mu.Lock()
	b.d, b.halt, b.done = d, cancel, done
	b.mu.Unlock()
	go func() { _ = d.Run(ctx); close(done) }()
}

// stop cuts the power.
func (b *board) stop() {
	b.mu.Lock()
	b.dead, b.to = true, nil
	halt, done := b.halt, b.done
	b.mu.Unlock()
	halt()
	<-done
	_ = b.j.Close()
}

// hear takes an envelope, and tells what the dispatcher says of it.
func (b *board) hear(envelope []byte) {
	b.mu.Lock()
	d, dead := b.d, b.dead
	b.mu.Unlock()
	if dead {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := d.Submit(ctx, envelope)
	if err != nil {
		return
	}
	b.note(r)
	_ = b.report(ctx, command.Report{V: 1, Result: r})
}

// note keeps a last word as the board says it.
func (b *board) note(r command.Result) {
	if !r.State.Final() || r.Code == command.CodeReplayed {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if was, ok := b.final[r.ID]; ok && was.State != r.State {
		b.w.t.Errorf("board %s says %v and %v of %s", b.name, was.State, r.State, r.ID)
	}
	b.final[r.ID] = r
}

func (b *board) tell(ctx context.Context, r command.Report) error {
	if b.isDead() {
		return errDead
	}
	b.note(r.Result)
	return b.report(ctx, r)
}

// report carries a word to the server: nil only where it is stored and the board hears so.
func (b *board) report(ctx context.Context, r command.Report) error {
	b.mu.Lock()
	s, mute := b.to, b.mute
	b.mu.Unlock()
	if s == nil || mute || b.w.chance(8) {
		return errLost
	}
	if b.w.chance(8) {
		d := b.w.delay()
		go func() { // once more, later
			time.Sleep(d)
			_ = s.Report(context.Background(), "default", b.name, r)
		}()
	}
	time.Sleep(b.w.delay())
	if err := s.Report(ctx, "default", b.name, r); err != nil {
		b.unplug()
		return err
	}
	if b.w.chance(8) {
		return errLost // the acknowledgement
	}
	return nil
}

func (b *board) handlers() []command.Handler {
	do := func(ctx context.Context, c command.Call) ([]byte, error) {
		begun := uint64(time.Now().UnixMilli())
		select {
		case <-time.After(time.Duration(b.w.intN(2000)) * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.dead {
			return nil, errDead
		}
		e := effect{c, begun}
		b.effects[c.ID] = append(b.effects[c.ID], e)
		b.order = append(b.order, e)
		return schema.Encode(map[string]int{"moved": 1})
	}
	happened := func(_ context.Context, c command.Call) (bool, []byte, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.effects[c.ID]) > 0, nil, nil
	}
	stop := func(ctx context.Context, c command.Call) ([]byte, error) {
		var args struct {
			ID string `cbor:"id"`
		}
		if err := schema.Decode(c.Args, &args); err != nil {
			return nil, err
		}
		id, err := command.ParseID(args.ID)
		if err == nil {
			_, err = b.d.Cancel(ctx, id, c.By)
		}
		return nil, err
	}
	return []command.Handler{
		{Name: "set", Do: do, Repeat: true},
		{Name: "move", Do: do, Happened: happened},
		{Name: "pulse", Do: do},
		{Name: "release", Do: do},
		{Name: "trigger-safety-shutdown", Do: do, Lane: command.Safety, Happened: happened},
		{Name: "cancel", Do: stop, Lane: command.Long, Repeat: true},
		{Name: "ping", Do: func(context.Context, command.Call) ([]byte, error) { return nil, nil }},
		{Name: "never", Do: do, Check: func([]byte) error { return errors.New("out of range") }},
	}
}

func person(who string) access.Caller {
	return access.Caller{Tenant: "default", Who: who, Author: who, Rights: rest.Operator.Rights()}
}

// all reads every row.
func (w *world) all() (heads []*commandrows.Command, rows []*commandrows.Board) {
	w.t.Helper()
	heads, err := w.reg.Commands().List(context.Background(), "default", commandrows.Filter{Limit: 100_000})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range heads {
		list, err := w.reg.Commands().Boards(context.Background(), "default", h.ID, 100_000)
		if err != nil {
			w.t.Fatal(err)
		}
		counts, open := map[string]int{}, 0
		for _, b := range list {
			counts[b.State]++
			if !b.Final {
				open++
			}
		}
		if fmt.Sprint(counts) != fmt.Sprint(h.Counts) || open != h.Open {
			w.t.Errorf("%s says %v and %d open, its boards %v and %d", shown.Name(h.ID), h.Counts, h.Open, counts, open)
		}
		rows = append(rows, list...)
	}
	return heads, rows
}

// judge holds what the fleet has against what the boards did.
func (w *world) judge(restored bool) {
	t := w.t
	heads, rows := w.all()
	by := map[int64]*commandrows.Command{}
	for _, h := range heads {
		by[h.ID] = h
	}
	for _, r := range rows {
		h, b := by[r.Command], w.boards[r.Board]
		word, said := b.final[r.ID]
		did := len(b.effects[r.ID])
		say := fmt.Sprintf("%s %s on %s (%s): %s own=%v, the board said %v, %d effects; %v", shown.Name(h.ID), h.Name, r.Board, command.ID(r.ID), r.State, r.Own, word.State, did, r.Events)
		switch {
		case !r.Final:
			t.Errorf("has no last word: %s", say)
		case said && (r.Own || word.State.String() != r.State) && !restored:
			t.Errorf("differ: %s", say)
		case !said && !r.Own:
			t.Errorf("invented: %s", say)
		case did > 1 && h.Name != "set":
			t.Errorf("done twice: %s", say)
		case h.DryRun && did > 0:
			t.Errorf("done though it was to be checked only: %s", say)
		case r.State == rest.CommandDone && did == 0 && h.Name != spec.NameCancel && !h.DryRun:
			t.Errorf("not done: %s", say)
		case did > 0 && (r.State == rest.CommandExpired || r.State == rest.CommandRefused):
			t.Errorf("done: %s", say)
		case did > 0 && r.State == rest.CommandCancelled && r.Own:
			t.Errorf("done though it never left: %s", say)
		}
	}
	for _, b := range w.boards {
		last := map[bool]uint64{}
		for _, e := range b.order {
			if e.begun >= e.call.Expires && !e.call.Again {
				t.Errorf("board %s began %s at %d, it was good until %d", b.name, e.call.ID, e.begun, e.call.Expires)
			}
			if e.call.Again || urgent(e.call.Name) || e.call.Name == "release" { // let out when somebody agreed
				continue
			}
			n := slices.IndexFunc(rows, func(r *commandrows.Board) bool { return command.ID(r.ID) == e.call.ID })
			if n < 0 {
				if !restored {
					t.Errorf("board %s did %s, which is in no row", b.name, e.call.ID)
				}
				continue
			}
			if c := uint64(rows[n].Command); c < last[true] {
				t.Errorf("board %s did %s after c-%d", b.name, shown.Name(int64(c)), last[true])
			} else {
				last[true] = c
			}
		}
	}
}
