// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"fulmar/command"
	"fulmar/schema"
	"fulmar/storage/journal"
)

// memory is a journal that outlives the program and not the test.
type memory struct {
	entries [][]byte
	size    int64
	lost    atomic.Bool // what is written is not there later
}

func (m *memory) Append(e ...[]byte) error {
	if m.lost.Load() {
		return nil
	}
	m.entries = append(m.entries, e...)
	for _, b := range e {
		m.size += int64(len(b))
	}
	return nil
}

func (m *memory) Rewrite(e [][]byte) error {
	if m.lost.Load() {
		return nil
	}
	m.entries, m.size = nil, 0
	return m.Append(e...)
}
func (m *memory) Size() int64 { return m.size }

func address() (tenant, board string) { return "t", "b" }

// island is a board whose fleet cannot be reached until told otherwise.
type island struct {
	t    *testing.T
	d    *Dispatcher
	stop func()
	log  memory
	mu   sync.Mutex
	deaf bool
	slow time.Duration // each result
	told []command.Report
	most int
}

func (i *island) start(handlers ...command.Handler) {
	i.t.Helper()
	d, err := New(Config{
		Address: address, Clock: schema.NewClock(1, 0), Handlers: handlers, Log: &i.log, Entries: i.log.entries, untold: i.most,
		Open: func(e []byte) ([]byte, error) { return e, nil }, Now: func() (uint64, bool) { return uint64(time.Now().UnixMilli()), true },
		Tell: func(_ context.Context, r command.Report) error {
			if r.Result.State.Final() {
				time.Sleep(i.slow)
			}
			i.mu.Lock()
			defer i.mu.Unlock()
			if i.deaf {
				return errors.New("the fleet cannot be reached")
			}
			if err := r.Validate(); err != nil {
				i.t.Error(err)
			}
			if r.Result.State.Final() {
				i.told = append(i.told, r)
			}
			return nil
		},
		Slog: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		i.t.Fatal(err)
	}
	i.d = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = d.Run(ctx); close(done) }()
	i.stop = func() { cancel(); <-done }
	i.t.Cleanup(func() { cancel(); <-done })
}

var serial struct {
	sync.Mutex
	n uint32
}

func newID() (id command.ID) {
	serial.Lock()
	defer serial.Unlock()
	serial.n++
	id[0], id[1], id[2], id[3], id[4] = byte(serial.n), byte(serial.n>>8), byte(serial.n>>16), byte(serial.n>>24), 7
	return id
}

func (i *island) local(actor, name string) (command.ID, command.Result) {
	i.t.Helper()
	c := command.Command{V: 1, ID: newID(), Tenant: "t", Board: "b", Name: name, Actor: actor, Args: []byte{0xa0}, Reason: "it was hot"}
	r, err := i.d.SubmitLocal(context.Background(), c)
	if err != nil {
		i.t.Errorf("%s of %s: %v", name, actor, err)
	}
	return c.ID, r
}

func (i *island) ends(id command.ID, want command.State) {
	i.t.Helper()
	if r, err := i.d.Wait(context.Background(), id); err != nil || r.State != want {
		i.t.Errorf("%+v, %v", r, err)
	}
}

func off() command.Handler {
	h := quick("shutdown")
	h.Lane = command.Safety
	return h
}

// TestAlone: a rule acts each second through a partition of an hour, with a restart in it.
// Nothing it gives is refused, nor a safety command; what is told afterwards and what is
// counted as dropped are together all that was done, and the safety command and the one
// that failed are told.
func TestAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fails := command.Handler{Name: "fails", Repeat: true, Do: func(context.Context, command.Call) ([]byte, error) { return nil, errors.New("stuck") }}
		i := &island{t: t, deaf: true}
		i.start(quick("set"), off(), fails)
		bad, _ := i.local("rule/fan", "fails")
		i.ends(bad, command.Failed)
		safety, _ := i.local("local/eve", "shutdown")
		i.ends(safety, command.Done)
		const n = 3600
		for k := range n {
			id, r := i.local("rule/fan", "set")
			if r.State != command.Accepted {
				t.Fatalf("number %d: %+v", k, r)
			}
			i.ends(id, command.Done)
			time.Sleep(time.Second)
			if k == n/2 {
				i.stop()
				i.start(quick("set"), off(), fails)
			}
		}
		last, r := i.local("local/eve", "shutdown")
		if r.State != command.Accepted {
			t.Fatalf("a safety command was not taken: %+v", r)
		}
		i.ends(last, command.Done)
		i.mu.Lock()
		i.deaf = false
		i.mu.Unlock()
		time.Sleep(time.Minute)
		i.account(n+3, bad, safety, last)
		if len(i.d.l.untold)+len(i.d.l.gaps) != 0 {
			t.Errorf("%d results and %d gaps still wait", len(i.d.l.untold), len(i.d.l.gaps))
		}
	})
}

// TestFloodIsOneGap: more is done than can be told, while the fleet is there. What does not
// fit is counted once, after the results: not in one gap for each report.
func TestFloodIsOneGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &island{t: t, most: 8, slow: time.Second}
		i.start(quick("set"))
		const n = 100
		for range n {
			id, _ := i.local("rule/fan", "set")
			i.ends(id, command.Done)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		i.account(n)
		gaps := 0
		for _, r := range i.told {
			if r.Command.Name == command.NameGap {
				gaps++
			}
		}
		if gaps != 1 || len(i.told) < 16 {
			t.Errorf("%d reports, %d of them gaps, wants 1", len(i.told), gaps)
		}
	})
}

// TestRefusedGoFirst: what was refused takes no room from what was done.
func TestRefusedGoFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &island{t: t, most: 8, deaf: true}
		i.start(quick("set"))
		id, _ := i.local("rule/fan", "set")
		i.ends(id, command.Done)
		for range 20 {
			refused, _ := i.local("rule/fan", "no-such")
			i.ends(refused, command.Refused)
		}
		i.mu.Lock()
		i.deaf = false
		i.mu.Unlock()
		time.Sleep(time.Minute)
		i.account(21, id)
	})
}

// account holds what was told to what was done: each once, or counted.
func (i *island) account(want int, ids ...command.ID) {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	seen, counted := map[command.ID]bool{}, uint64(0)
	for _, r := range i.told {
		if r.Command == nil {
			i.t.Errorf("%s is told without what was given", r.Result.ID)
			continue
		}
		if seen[r.Result.ID] {
			i.t.Errorf("%s is told twice", r.Result.ID)
		}
		seen[r.Result.ID] = true
		if r.Command.Name == command.NameGap {
			var v command.GapValue
			if err := schema.Decode(r.Result.Value, &v); err != nil || v.Count == 0 || !strings.Contains(r.Result.Text, fmt.Sprint(v.Count)) {
				i.t.Errorf("gap %+v %q, %v", v, r.Result.Text, err)
			}
			counted += v.Count
			delete(seen, r.Result.ID)
		} else if r.Given == (schema.Time{}) || r.Begun == (schema.Time{}) && r.Result.State != command.Refused || r.Command.Reason == "" || r.Command.Args == nil {
			i.t.Errorf("what was given is not whole: %+v", r)
		}
	}
	if len(seen)+int(counted) != want {
		i.t.Errorf("%d told and %d counted of %d", len(seen), counted, want)
	}
	for _, id := range ids {
		if !seen[id] {
			i.t.Errorf("%s was dropped", id)
		}
	}
}

// TestGapOverCrash: the power goes between any two steps while results are dropped and
// told. A stop in order counts each once; a cut may have one told that is counted too,
// and never one that is neither.
func TestGapOverCrash(t *testing.T) {
	t.Parallel()
	for step := range 40 {
		synctest.Test(t, func(t *testing.T) {
			i := &island{t: t, deaf: true, most: 5}
			i.start(quick("set"))
			for k := range 20 {
				id, _ := i.local("rule/fan", "set")
				i.ends(id, command.Done)
				i.mu.Lock()
				i.deaf = k%7 != 6
				i.mu.Unlock()
				time.Sleep(1100 * time.Millisecond)
				if k == step/2 {
					// What the disk holds, and not what the program would still have written. An odd
					// step loses the lines that were to be written with the next ones.
					if step%2 == 1 {
						i.log.lost.Store(true)
					}
					i.stop()
					i.log.lost.Store(false)
					i.start(quick("set"))
				}
			}
			i.mu.Lock()
			i.deaf = false
			i.mu.Unlock()
			time.Sleep(time.Minute)
			if step%2 == 0 {
				i.account(20)
				return
			}
			// A line that was lost has a result told twice, or told and then counted; never neither.
			i.mu.Lock()
			defer i.mu.Unlock()
			seen, counted := map[command.ID]bool{}, 0
			for _, r := range i.told {
				if r.Command.Name == command.NameGap && !seen[r.Result.ID] {
					var v command.GapValue
					if err := schema.Decode(r.Result.Value, &v); err != nil {
						t.Error(err)
					}
					counted += int(v.Count) - 1 // the gap itself is among the seen
				}
				seen[r.Result.ID] = true
			}
			if n := len(seen) + counted; n < 20 || n > 20+5+1 {
				t.Errorf("step %d: %d told or counted of 20", step, n)
			}
		})
	}
}

// TestFleetWaits: while results of the fleet's own commands cannot be told the fleet is
// asked to come again, and a safety command is taken all the same.
func TestFleetWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &island{t: t, deaf: true, most: 5}
		i.start(quick("set"), off())
		give := func(seq uint64, name string) (command.Result, error) {
			c := command.Command{V: 1, ID: newID(), Tenant: "t", Board: "b", Name: name, Actor: command.ActorFleet, Seq: seq, Expires: uint64(time.Now().UnixMilli()) + 1e6}
			p, err := schema.Encode(&c)
			if err != nil {
				t.Fatal(err)
			}
			r, err := i.d.Submit(context.Background(), p)
			if err == nil {
				i.ends(c.ID, command.Done)
			}
			return r, err
		}
		for n := range 5 {
			if r, err := give(uint64(n+1), "set"); err != nil || r.State != command.Accepted {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		if r, err := give(6, "set"); err == nil {
			t.Errorf("taken though five results wait: %+v", r)
		}
		if r, err := give(6, "shutdown"); err != nil || r.State != command.Accepted {
			t.Errorf("safety: %+v, %v", r, err)
		}
		if id, r := i.local("rule/fan", "set"); r.State != command.Accepted {
			t.Errorf("a rule: %+v", r)
		} else {
			i.ends(id, command.Done)
		}
	})
}

// broken is a journal that takes nothing more until it is written anew.
type broken struct {
	memory
	bad bool
}

func (b *broken) Append(e ...[]byte) error {
	if b.bad {
		return journal.ErrBroken
	}
	return b.memory.Append(e...)
}

func (b *broken) Rewrite(e [][]byte) error {
	b.bad = false
	return b.memory.Rewrite(e)
}

// TestBrokenJournal: a journal that lost its disk for a moment is written anew from what
// is known, and nothing is lost.
func TestBrokenJournal(t *testing.T) {
	t.Parallel()
	safe := func(string) bool { return false }
	b := &broken{}
	l := newLedger(b, nil, 9, safe)
	accept := func(n byte) line {
		return line{Op: opAccept, Local: true, Command: &command.Command{V: 1, ID: command.ID{n}, Tenant: "t", Board: "b", Name: "set", Actor: "rule/a", Seq: uint64(n)}}
	}
	if err := l.write(false, accept(1)); err != nil {
		t.Fatal(err)
	}
	b.bad = true
	if err := l.write(false, accept(2)); err != nil {
		t.Fatal(err)
	}
	if again := newLedger(b, b.entries, 9, safe); len(again.waiting) != 2 || again.local["rule/a"].high != 2 {
		t.Errorf("%d commands are known", len(again.waiting))
	}
}

// TestForgottenActor: the number of one that is forgotten outlives the journal's rewriting.
func TestForgottenActor(t *testing.T) {
	t.Parallel()
	safe := func(string) bool { return false }
	m := &memory{}
	l := newLedger(m, nil, 9, safe)
	l.number("rule/old", 5)
	for n := range maxActors {
		l.number(fmt.Sprint("rule/r", n), 1)
	}
	if err := l.compact(); err != nil {
		t.Fatal(err)
	}
	if n := newLedger(m, m.entries, 9, safe).next("rule/old"); n <= 5 {
		t.Errorf("it gets number %d again", n)
	}
}

// TestActors: no number of actors locks anybody out. The board's own come and go, and
// their numbers rise all the same; signed ones have a bound, with a place for the fleet.
func TestActors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := &island{t: t}
		i.start(quick("set"))
		high := map[string]uint64{}
		for round := range 3 {
			for n := range 3 * maxActors {
				who := fmt.Sprintf("rule/r%d", n)
				id, r := i.local(who, "set")
				if r.State != command.Accepted {
					t.Fatalf("%s: %+v", who, r)
				}
				i.ends(id, command.Done)
				list, err := i.d.List(context.Background(), 1)
				if err != nil || len(list) != 1 || list[0].Result.ID != id {
					t.Fatal(list, err)
				}
				if seq := list[0].Command.Seq; seq <= high[who] {
					t.Fatalf("round %d: number %d of %s after %d", round, seq, who, high[who])
				}
				high[who] = list[0].Command.Seq
			}
			i.stop()
			if err := i.d.l.compact(); err != nil {
				t.Fatal(err)
			}
			i.start(quick("set"))
		}
		if n := len(i.d.l.local); n > maxActors {
			t.Errorf("%d actors are numbered", n)
		}
		give := func(actor string) command.Result {
			c := command.Command{V: 1, ID: newID(), Tenant: "t", Board: "b", Name: "set", Actor: actor, Seq: 1, Expires: uint64(time.Now().UnixMilli()) + 1e6}
			p, err := schema.Encode(&c)
			if err != nil {
				t.Fatal(err)
			}
			r, err := i.d.Submit(context.Background(), p)
			if err != nil {
				t.Fatal(err)
			}
			if r.State == command.Accepted {
				i.ends(c.ID, command.Done)
			}
			return r
		}
		for n := range maxActors + 3 {
			want := ""
			if n >= maxActors {
				want = command.CodeActors
			}
			if r := give(fmt.Sprint("person", n)); r.Code != want {
				t.Errorf("person %d: %+v", n, r)
			}
		}
		if r := give(command.ActorFleet); r.State != command.Accepted {
			t.Errorf("the fleet is locked out: %+v", r)
		}
		for _, own := range []string{"local/eve", "rule/r1", "key/0123456789abcdef", command.ActorBoard} {
			if r := give(own); r.Code != command.CodeActor {
				t.Errorf("%s was signed for: %+v", own, r)
			}
		}
		c := command.Command{V: 1, ID: newID(), Tenant: "t", Board: "b", Name: "set", Actor: command.ActorFleet}
		if _, err := i.d.SubmitLocal(context.Background(), c); err == nil {
			t.Error("the board spoke for the fleet")
		}
	})
}

// TestSafetyFlood: safety commands have a bound too, and one that does not come back does
// not keep the next from being tried.
func TestSafetyFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := command.Handler{Name: "shutdown", Lane: command.Safety, Timeout: time.Second, Repeat: true, Do: func(context.Context, command.Call) ([]byte, error) { <-release; return nil, nil }}
		i := &island{t: t}
		i.start(h)
		first, _ := i.local("local/eve", "shutdown")
		if _, err := i.d.Cancel(context.Background(), first, "mallory"); err == nil {
			t.Error("a safety command was cancelled")
		}
		i.ends(first, command.Unknown) // it hangs and is given up
		for n := range maxSafety + 2 {
			want := command.Accepted
			if n >= maxSafety-1 {
				want = command.Refused
			}
			if _, r := i.local("rule/hot", "shutdown"); r.State != want {
				t.Errorf("number %d: %+v", n, r)
			}
		}
		close(release)
		synctest.Wait()
		id, _ := i.local("local/eve", "shutdown")
		i.ends(id, command.Done)
	})
}

// TestClip: what is cut is still text, and a text that was none does not keep the journal
// from being read.
func TestClip(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "a", strings.Repeat("ä", schema.MaxText), "x" + strings.Repeat("ä", schema.MaxText), "\xff\xfe", strings.Repeat("\xff", 2*schema.MaxText)} {
		if c := clip(s); !utf8.ValidString(c) || len(c) > schema.MaxText || len(s) < schema.MaxText && len(s) > 0 && c == "" {
			t.Errorf("%.10q became %d bytes", s, len(c))
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := command.Handler{Name: "set", Repeat: true, Do: func(context.Context, command.Call) ([]byte, error) {
			return nil, errors.New(strings.Repeat("ä", 600) + "\xff")
		}}
		i := &island{t: t}
		i.start(h)
		id, _ := i.local("local/eve", "set")
		i.ends(id, command.Failed)
		i.stop()
		i.log.entries = append(i.log.entries, []byte("what a newer release wrote"))
		i.start(h)
		i.ends(id, command.Failed)
	})
}
