// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/command"
	"fulmar/schema"
	"fulmar/storage/journal"
)

// bench is a dispatcher with a real journal, whose fleet time is the bubble's.
type bench struct {
	t    *testing.T
	d    *Dispatcher
	stop func()
	path string
	mu   sync.Mutex
	told []command.Result
	seq  uint64
	log  func(*journal.Journal) Log
}

func (b *bench) now() uint64 { return uint64(time.Now().UnixMilli()) }

func (b *bench) start(handlers ...command.Handler) {
	b.t.Helper()
	j, entries, err := journal.Open(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	var log Log = j
	if b.log != nil {
		log = b.log(j)
	}
	b.d, err = New(Config{
		Address: address, Clock: schema.BootClock(1), Handlers: handlers, Log: log, Entries: entries,
		Open: func(e []byte) ([]byte, error) {
			if !bytes.HasPrefix(e, []byte("signed:")) {
				return nil, errors.New("no key of the role command signed it")
			}
			return e[7:], nil
		},
		Now: func() (uint64, bool) { return b.now(), true },
		Tell: func(_ context.Context, rep command.Report) error {
			r := rep.Result
			b.mu.Lock()
			defer b.mu.Unlock()
			b.told = append(b.told, r)
			return nil
		},
		Slog: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = b.d.Run(ctx); close(done) }()
	b.stop = func() { cancel(); <-done; _ = j.Close() }
	b.t.Cleanup(func() { cancel(); <-done; _ = j.Close() })
}

func newBench(t *testing.T, handlers ...command.Handler) *bench {
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "commands")}
	b.start(handlers...)
	return b
}

func (b *bench) command(name string, change ...func(*command.Command)) (command.ID, []byte) {
	b.t.Helper()
	b.seq++
	c := &command.Command{V: 1, Tenant: "t", Board: "b", Name: name, Actor: "alice", Seq: b.seq, Issued: b.now(), Expires: b.now() + 60_000}
	c.ID[0], c.ID[1], c.ID[15] = byte(b.seq), byte(b.seq>>8), 1
	for _, f := range change {
		f(c)
	}
	p, err := schema.Encode(c)
	if err != nil {
		b.t.Fatal(err)
	}
	return c.ID, append([]byte("signed:"), p...)
}

func (b *bench) give(name string, change ...func(*command.Command)) (command.ID, command.Result) {
	b.t.Helper()
	id, p := b.command(name, change...)
	r, err := b.d.Submit(context.Background(), p)
	if err != nil {
		b.t.Fatal(err)
	}
	return id, r
}

func (b *bench) ends(id command.ID, want command.State, code string) command.Result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	r, err := b.d.Wait(ctx, id)
	if err != nil || r.State != want || r.Code != code {
		b.t.Errorf("ended as %v %s %q, %v; wants %v %s", r.State, r.Code, r.Text, err, want, code)
	}
	return r
}

func quick(name string) command.Handler {
	return command.Handler{Name: name, Repeat: true, Do: func(context.Context, command.Call) ([]byte, error) { return []byte{0xf5}, nil }}
}

// slow lasts a minute, or until it is cancelled.
func slow(name string, lane command.Lane) command.Handler {
	return command.Handler{Name: name, Lane: lane, Timeout: time.Hour, Do: func(ctx context.Context, c command.Call) ([]byte, error) {
		c.Progress(50, "half of it")
		select {
		case <-time.After(time.Minute):
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		picky := quick("picky")
		picky.Check = func(args []byte) error {
			if len(args) > 0 {
				return &command.Error{Code: "out-of-range", Text: "120 is over 100"}
			}
			return nil
		}
		panics := command.Handler{Name: "panics", Do: func(context.Context, command.Call) ([]byte, error) { panic("a bug") }}
		talks := command.Handler{Name: "talks", Do: func(context.Context, command.Call) ([]byte, error) { return make([]byte, command.MaxValue+1), nil }}
		b := newBench(t, picky, panics, talks)
		for what, c := range map[string]struct {
			name   string
			change func(*command.Command)
			state  command.State
			code   string
		}{
			"another board":  {"picky", func(c *command.Command) { c.Board = "b2" }, command.Refused, command.CodeAddress},
			"another tenant": {"picky", func(c *command.Command) { c.Tenant = "t2" }, command.Refused, command.CodeAddress},
			"too old":        {"picky", func(c *command.Command) { c.Expires = c.Issued }, command.Expired, command.CodeLate},
			"no such":        {"fly", func(*command.Command) {}, command.Refused, command.CodeUnknown},
			"arguments":      {"picky", func(c *command.Command) { c.Args = []byte{1} }, command.Refused, "out-of-range"},
			"replayed":       {"picky", func(c *command.Command) { c.Seq = 1 }, command.Refused, command.CodeReplayed},
			"dry run":        {"picky", func(c *command.Command) { c.DryRun = true }, command.Done, ""},
		} {
			if b.seq == 0 {
				b.give("picky")
			}
			if _, r := b.give(c.name, c.change); r.State != c.state || r.Code != c.code {
				t.Errorf("%s: %v %s %q", what, r.State, r.Code, r.Text)
			}
		}
		id, _ := b.give("panics")
		b.ends(id, command.Failed, command.CodePanic)
		id, _ = b.give("talks")
		b.ends(id, command.Done, command.CodeFailed)
		id, p := b.command("picky")
		if _, err := b.d.Submit(context.Background(), p[7:]); !errors.Is(err, ErrNotSigned) {
			t.Errorf("unsigned: %v", err)
		}
		if _, err := b.d.Wait(context.Background(), id); !errors.Is(err, ErrNotKnown) {
			t.Errorf("something is known of an unsigned command: %v", err)
		}
		if _, err := b.d.Submit(context.Background(), []byte("signed:junk")); err == nil {
			t.Error("junk was taken")
		}
		if _, r := b.give("picky", func(c *command.Command) { c.Actor = "bob"; c.Seq = 1 }); r.State != command.Accepted {
			t.Errorf("another actor: %+v", r)
		}
	})
}

// TestSafetyFirst: a safety command is done at once; what ran is cancelled, what waited
// is done after it.
func TestSafetyFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		off := command.Handler{Name: "shutdown", Lane: command.Safety, Repeat: true, Do: func(context.Context, command.Call) ([]byte, error) {
			time.Sleep(2 * time.Second)
			return nil, nil
		}}
		b := newBench(t, slow("move", command.Normal), slow("collect", command.Long), quick("set"), off)
		moving, _ := b.give("move")
		collecting, _ := b.give("collect")
		waiting, _ := b.give("set")
		synctest.Wait()
		begin := time.Now()
		id, r := b.give("shutdown")
		if r.State != command.Accepted {
			t.Fatalf("%+v", r)
		}
		b.ends(moving, command.Cancelled, command.CodePreempted)
		b.ends(collecting, command.Cancelled, command.CodePreempted)
		b.ends(id, command.Done, "")
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("the shutdown took %v", d)
		}
		b.ends(waiting, command.Done, "")
	})
}

// TestLanes: normal ones one after the other, long ones beside, a few at a time; how far
// they are is told.
func TestLanes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, slow("move", command.Normal), slow("collect", command.Long))
		begin := time.Now()
		var moves, collects []command.ID
		for range 2 {
			id, _ := b.give("move", func(c *command.Command) { c.Expires += 600_000 })
			moves = append(moves, id)
		}
		for range MaxLong + 1 {
			id, _ := b.give("collect", func(c *command.Command) { c.Expires += 600_000 })
			collects = append(collects, id)
		}
		b.ends(moves[0], command.Done, "")
		b.ends(collects[MaxLong-1], command.Done, "")
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("the first ones took %v", d)
		}
		b.ends(moves[1], command.Done, "")
		b.ends(collects[MaxLong], command.Done, "")
		if d := time.Since(begin); d != 2*time.Minute {
			t.Errorf("all took %v", d)
		}
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		half := 0
		for _, r := range b.told {
			if r.State == command.Running && r.Percent == 50 {
				half++
			}
		}
		if half != 7 {
			t.Errorf("%d of 7 told that they are half done", half)
		}
	})
}

// TestEnds: by a person, by its time, and by neither.
func TestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		hangs := command.Handler{Name: "hangs", Timeout: 3 * time.Second, Do: func(context.Context, command.Call) ([]byte, error) { <-release; return nil, nil }}
		brief := slow("brief", command.Normal)
		brief.Timeout = 2 * time.Second
		b := newBench(t, hangs, brief, slow("move", command.Normal), quick("set"))
		id, _ := b.give("brief")
		b.ends(id, command.Failed, command.CodeTimeout)
		id, _ = b.give("move")
		next, _ := b.give("set")
		synctest.Wait()
		if r, err := b.d.Cancel(context.Background(), next, "bob"); err != nil || r.State != command.Cancelled {
			t.Errorf("cancel of one that waits: %+v, %v", r, err)
		}
		if _, err := b.d.Cancel(context.Background(), id, "bob"); err != nil {
			t.Error(err)
		}
		if r := b.ends(id, command.Cancelled, command.CodeCancelled); !strings.Contains(r.Text, "bob") {
			t.Errorf("by whom? %q", r.Text)
		}
		id, _ = b.give("hangs")
		b.ends(id, command.Unknown, command.CodeTimeout)
		id, _ = b.give("set") // the lane goes on
		b.ends(id, command.Done, "")
		id, _ = b.give("hangs")
		b.ends(id, command.Refused, command.CodeTimeout)
		close(release)
		synctest.Wait()
		id, _ = b.give("hangs")
		b.ends(id, command.Done, "")
	})
}

// TestFlood: ten thousand commands at once take bounded room; each is answered, and those
// that were accepted are done.
func TestFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Int64
		h := command.Handler{Name: "set", Repeat: true, Do: func(context.Context, command.Call) ([]byte, error) {
			done.Add(1)
			time.Sleep(time.Second)
			return nil, nil
		}}
		b := newBench(t, h)
		count := map[command.State]int{}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range 10_000 { // fifty people at a time, each with a name of his own
			_, p := b.command("set", func(c *command.Command) {
				c.Expires += 1e9
				c.Actor = fmt.Sprint("person", i%50)
				c.Seq = uint64(i/50 + 1)
			})
			wg.Go(func() {
				r, err := b.d.Submit(context.Background(), p)
				for ; err != nil; r, err = b.d.Submit(context.Background(), p) { // its results are behind
					time.Sleep(time.Second)
				}
				if err != nil || r.State == command.Refused && r.Code != command.CodeQueueFull {
					t.Errorf("%+v, %v", r, err)
				}
				mu.Lock()
				count[r.State]++
				mu.Unlock()
			})
			if i%50 == 49 {
				wg.Wait()
			}
		}
		time.Sleep(5 * time.Minute)
		b.stop()
		if count[command.Accepted] < maxQueue || count[command.Accepted] > maxQueue+60 || int(done.Load()) != count[command.Accepted] { // one more is taken each second
			t.Errorf("%v, %d done", count, done.Load())
		}
		if n := len(b.d.l.items); n > maxEnded+maxQueue {
			t.Errorf("%d commands are remembered", n)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		final := map[command.ID]bool{}
		for _, r := range b.told {
			if r.State.Final() {
				final[r.ID] = true
			}
		}
		if len(final) != 10_000 {
			t.Errorf("%d of 10000 have a final word", len(final))
		}
	})
}

// deadDisk is a journal whose disk died.
type deadDisk struct {
	*journal.Journal
	dead *atomic.Bool
}

func (d deadDisk) Append(e ...[]byte) error {
	if d.dead.Load() {
		return errors.New("input/output error")
	}
	return d.Journal.Append(e...)
}

// TestDeadDisk: with a disk that takes nothing no command is accepted, so it may be given
// again; a safety shutdown is done all the same.
func TestDeadDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Bool
		var off atomic.Int64
		shutdown := command.Handler{Name: "shutdown", Lane: command.Safety, Repeat: true, Do: func(context.Context, command.Call) ([]byte, error) { off.Add(1); return nil, nil }}
		b := &bench{t: t, path: filepath.Join(t.TempDir(), "commands"), log: func(j *journal.Journal) Log { return deadDisk{j, &dead} }}
		b.start(quick("set"), shutdown)
		dead.Store(true)
		_, p := b.command("set")
		if _, err := b.d.Submit(context.Background(), p); err == nil {
			t.Error("accepted, and it is written nowhere")
		}
		id, _ := b.give("shutdown")
		b.ends(id, command.Done, "")
		dead.Store(false)
		time.Sleep(2 * time.Second)
		b.stop()
		b.start(quick("set"), shutdown)
		b.ends(id, command.Done, "")
		if off.Load() != 1 {
			t.Errorf("shut down %d times", off.Load())
		}
	})
}

// TestToldAgain: a command that comes again after its end is answered with its result,
// over a restart, and nothing is done.
func TestToldAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		h := command.Handler{Name: "pulse", Do: func(context.Context, command.Call) ([]byte, error) { n.Add(1); return []byte{7}, nil }}
		b := newBench(t, h)
		id, p := b.command("pulse")
		if _, err := b.d.Submit(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		b.ends(id, command.Done, "")
		synctest.Wait()
		for range 2 {
			told := len(b.told)
			r, err := b.d.Submit(context.Background(), p)
			if err != nil || r.State != command.Done || !bytes.Equal(r.Value, []byte{7}) {
				t.Errorf("%+v, %v", r, err)
			}
			synctest.Wait()
			if len(b.told) != told+1 {
				t.Errorf("told %d times more, wants once", len(b.told)-told)
			}
			b.stop()
			b.start(h)
		}
		if n.Load() != 1 {
			t.Errorf("done %d times", n.Load())
		}
	})
}

// TestLocal: a command of the board itself that waits when the program dies is not done
// by the next one.
func TestLocal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, slow("move", command.Normal), quick("set"))
		give := func(name string, n byte) command.ID {
			c := command.Command{V: 1, ID: command.ID{n, 9}, Tenant: "t", Board: "b", Name: name, Actor: "local/eve", Seq: uint64(n)}
			if _, err := b.d.SubmitLocal(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			return c.ID
		}
		id := give("set", 1)
		b.ends(id, command.Done, "")
		give("move", 2)
		id = give("set", 3)
		synctest.Wait()
		b.stop()
		b.start(slow("move", command.Normal), quick("set"))
		b.ends(id, command.Expired, command.CodeLate)
		if _, err := b.d.SubmitLocal(context.Background(), command.Command{V: 1}); err == nil {
			t.Error("a command without a name was taken")
		}
	})
}

func TestWords(t *testing.T) {
	t.Parallel()
	for s := command.Accepted; s <= command.Unknown; s++ {
		if strings.HasPrefix(s.String(), "state") || s.Final() != (s >= command.Done) {
			t.Errorf("%d is %s", s, s)
		}
	}
	for what, r := range map[string]command.Result{
		"version": {V: 2, ID: command.ID{1}, State: command.Done}, "id": {V: 1, State: command.Done}, "state": {V: 1, ID: command.ID{1}, State: 9}, "percent": {V: 1, ID: command.ID{1}, State: command.Running, Percent: 101},
		"value": {V: 1, ID: command.ID{1}, State: command.Done, Value: make([]byte, command.MaxValue+1)}, "code": {V: 1, ID: command.ID{1}, State: command.Done, Code: strings.Repeat("x", 65)},
	} {
		if r.Validate() == nil {
			t.Errorf("%s: is valid", what)
		}
	}
	for _, h := range [][]command.Handler{{{Name: "A b", Do: quick("a").Do}}, {{Name: "a"}}, {quick("a"), quick("a")}} {
		if _, err := New(Config{Handlers: h}); err == nil {
			t.Errorf("%+v was taken", h)
		}
	}
}

// nothing is a journal that takes all and keeps none.
type nothing struct{}

func (nothing) Append(...[]byte) error { return nil }
func (nothing) Rewrite([][]byte) error { return nil }
func (nothing) Size() int64            { return 0 }

// FuzzCommand: what is read is within the bounds, and a journal of anything does not
// bring the board down.
func FuzzCommand(f *testing.F) {
	c := command.Command{V: 1, ID: command.ID{1}, Tenant: "t", Board: "b", Name: "set", Actor: "a", Seq: 1, Args: []byte{1}}
	for _, v := range []any{&c, &line{Op: opAccept, Command: &c}, &line{Op: opEnd, Result: &command.Result{V: 1, ID: command.ID{1}, State: command.Done}}, &line{Op: opActor, Actor: "a", Seq: 3}, &line{Op: opDrop, ID: command.ID{1}}, &line{Op: opGap, Gap: &gap{ID: command.ID{2}, Count: 1}}} {
		b, err := schema.Encode(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c command.Command
		if schema.Decode(b, &c) == nil {
			if _, err := schema.Encode(&c); err != nil {
				t.Fatal(err)
			}
		}
		l := newLedger(nothing{}, [][]byte{b, b}, 1, func(string) bool { return false })
		if err := l.compact(); err != nil {
			t.Fatal(err)
		}
		l.nextReport()
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	j, entries, err := journal.Open(filepath.Join(b.TempDir(), "j"))
	if err != nil {
		b.Fatal(err)
	}
	d, err := New(Config{
		Address: address, Clock: schema.BootClock(1), Handlers: []command.Handler{quick("set")}, Log: j, Entries: entries,
		Now: func() (uint64, bool) { return 1, true }, Open: func(e []byte) ([]byte, error) { return e, nil },
		Tell: func(context.Context, command.Report) error { return nil }, Slog: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = d.Run(ctx); close(done) }()
	var seq uint64
	for b.Loop() {
		seq++
		c := command.Command{V: 1, Tenant: "t", Board: "b", Name: "set", Actor: "a", Seq: seq, Expires: 9}
		c.ID[0], c.ID[1], c.ID[2], c.ID[3] = byte(seq), byte(seq>>8), byte(seq>>16), 1
		p, err := schema.Encode(&c)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.Submit(ctx, p); err != nil {
			b.Fatal(err)
		}
		if r, err := d.Wait(ctx, c.ID); err != nil || r.State != command.Done {
			b.Fatal(r, err)
		}
	}
	cancel()
	<-done
	_ = j.Close()
}
