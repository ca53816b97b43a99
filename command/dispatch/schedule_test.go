// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/command"
	"fulmar/schema"
)

var (
	seedFlag  = flag.Uint64("command.seed", 0, "run only this schedule")
	seedsFlag = flag.Int("command.schedules", 2000, "how many random schedules")
)

var errDead = errors.New("the power is gone")

// board is one board: what its disk holds, what its outputs did, and the program on it,
// which the power may leave at any step.
type board struct {
	mu      sync.Mutex
	r       *rand.Rand
	disk    [][]byte
	dead    bool // the power is gone: nothing has an effect any more
	left    int  // steps until the power goes; 0 for never
	effects map[command.ID][]effect
	order   map[string]uint64 // newest number that had an effect, by actor
	wrong   []string
	told    map[command.ID][]command.Result
	time    func() (uint64, bool)
	deaf    bool // the spool takes nothing now
	dropped uint64
	gaps    map[command.ID]bool
}

// local marks the id of a command of the board itself.
const local = 7

type effect struct {
	at    uint64
	known bool
}

// step is a point at which the power may go; it says whether it is there.
func (b *board) step() bool {
	if b.dead {
		return false
	}
	if b.left > 0 {
		if b.left--; b.left == 0 {
			b.dead = true
			return false
		}
	}
	return true
}

// Append, Rewrite and Size are the journal. The power may go before or after the flush.
func (b *board) Append(entries ...[]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range entries { // a cut leaves the first few
		if !b.step() {
			return errDead
		}
		b.disk = append(b.disk, bytes.Clone(e))
	}
	if !b.step() {
		return errDead
	}
	return nil
}

func (b *board) Rewrite(entries [][]byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.step() {
		return errDead
	}
	b.disk = nil
	for _, e := range entries {
		b.disk = append(b.disk, bytes.Clone(e))
	}
	return nil
}

func (b *board) Size() (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.disk {
		n += int64(len(e))
	}
	return n * 4000 // so that it is rewritten now and then
}

func (b *board) tell(_ context.Context, rep command.Report) error {
	r := rep.Result
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.step() {
		return errDead
	}
	if b.deaf {
		return errors.New("the spool is full")
	}
	if rep.Command != nil && rep.Command.Name == command.NameGap {
		var v command.GapValue
		if err := schema.Decode(r.Value, &v); err != nil {
			b.wrong = append(b.wrong, err.Error())
		}
		if !b.gaps[r.ID] {
			b.dropped += v.Count
		}
		b.gaps[r.ID] = true
		return nil
	}
	if (rep.Command != nil) != (r.ID[3] == local) {
		b.wrong = append(b.wrong, fmt.Sprintf("%s was told with the command %+v", r.ID, rep.Command))
	}
	b.told[r.ID] = append(b.told[r.ID], r)
	return nil
}

// act has the effect of a call.
func (b *board) act(ctx context.Context, c command.Call, ordered bool) ([]byte, error) {
	b.mu.Lock()
	wait := time.Duration(b.r.IntN(3)) * time.Second
	alive := b.step()
	b.mu.Unlock()
	if !alive {
		<-ctx.Done()
		return nil, errDead
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.step() {
		return nil, errDead
	}
	now, known := b.time()
	b.effects[c.ID] = append(b.effects[c.ID], effect{now, known})
	if ordered && !c.Again {
		if c.Seq < b.order[c.Actor] {
			b.wrong = append(b.wrong, fmt.Sprintf("number %d of %s had its effect after %d", c.Seq, c.Actor, b.order[c.Actor]))
		}
		b.order[c.Actor] = max(b.order[c.Actor], c.Seq)
	}
	if !b.step() {
		return nil, errDead
	}
	if b.r.IntN(8) == 0 {
		return nil, &command.Error{Code: "valve-stuck", Text: "the valve does not move"}
	}
	return []byte{1}, nil
}

func (b *board) happened(_ context.Context, c command.Call) (bool, []byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.effects[c.ID]) > 0, []byte{1}, nil
}

func (b *board) handlers() []command.Handler {
	do := func(ctx context.Context, c command.Call) ([]byte, error) { return b.act(ctx, c, true) }
	beside := func(ctx context.Context, c command.Call) ([]byte, error) { return b.act(ctx, c, false) }
	return []command.Handler{
		{Name: "set", Do: do, Repeat: true},
		{Name: "move", Do: do, Happened: b.happened},
		{Name: "pulse", Do: do},
		{Name: "collect", Do: beside, Lane: command.Long, Repeat: true, Timeout: time.Minute},
		{Name: "shutdown", Do: beside, Lane: command.Safety, Happened: b.happened},
		{Name: "never", Do: do, Check: func([]byte) error { return errors.New("out of range") }},
	}
}

// life is one start of the program.
type life struct {
	d    *Dispatcher
	stop func()
}

func (b *board) start(t *testing.T) *life {
	b.mu.Lock()
	b.dead, b.left = false, 0
	entries := make([][]byte, len(b.disk))
	copy(entries, b.disk)
	b.mu.Unlock()
	d, err := New(Config{
		Address: address, Open: func(e []byte) ([]byte, error) { return e, nil }, Now: b.time, Clock: schema.BootClock(1),
		Handlers: b.handlers(), Log: b, Entries: entries, Tell: b.tell, untold: 6, Slog: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = d.Run(ctx); close(done) }()
	return &life{d, func() { cancel(); <-done }}
}

// TestSchedules: commands of three actors are given, given again, come twice, while the
// power goes at any step, the fleet's time is unknown for a while after each start, and
// the spool is deaf now and then. In the end each has one final word, and what had an
// effect, how often, when and in which order is as that word says.
func TestSchedules(t *testing.T) {
	t.Parallel()
	n, first := *seedsFlag, uint64(1)
	if *seedFlag > 0 {
		n, first = 1, *seedFlag
	}
	if testing.Short() {
		n = min(n, 200)
	}
	for shard := range 4 {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			for i := shard; i < n && !t.Failed(); i += 4 {
				synctest.Test(t, func(t *testing.T) { schedule(t, first+uint64(i)) })
			}
		})
	}
}

func schedule(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	begin := time.Now()
	var knownFrom time.Time
	b := &board{r: rand.New(rand.NewPCG(seed, 3)), gaps: map[command.ID]bool{}, effects: map[command.ID][]effect{}, order: map[string]uint64{}, told: map[command.ID][]command.Result{}}
	fleetNow := func() uint64 { return 1_000_000 + uint64(time.Since(begin).Milliseconds()) }
	b.time = func() (uint64, bool) { return fleetNow(), !time.Now().Before(knownFrom) }
	names := []string{"set", "set", "move", "move", "pulse", "collect", "shutdown", "never", "unheard-of"}
	sent := map[command.ID]*command.Command{}
	var order []command.ID
	var mine []command.Command
	seq := map[string]uint64{}
	l := b.start(t)
	give := func(c *command.Command) {
		p, err := schema.Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = l.d.Submit(ctx, p)
	}
	settled := func(id command.ID) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, r := range b.told[id] {
			if r.State.Final() {
				return true
			}
		}
		return false
	}
	for range 20 + r.IntN(40) {
		switch k := r.IntN(22); {
		case k >= 20: // a person or a rule at the board
			c := command.Command{V: 1, Tenant: "t", Board: "b", Name: names[r.IntN(len(names))], Actor: fmt.Sprint("rule/r", r.IntN(3))}
			c.ID[0], c.ID[1], c.ID[2], c.ID[3] = byte(len(mine)+1), byte(seed), byte(seed>>8), local
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if res, err := l.d.SubmitLocal(ctx, c); err == nil && res.State == command.Accepted {
				mine = append(mine, c)
			}
			cancel()
		case k < 8:
			actor := fmt.Sprint("actor", r.IntN(3))
			seq[actor]++
			c := &command.Command{V: 1, Tenant: "t", Board: "b", Name: names[r.IntN(len(names))], Actor: actor, Seq: seq[actor], Issued: fleetNow(), Expires: fleetNow() + uint64(1+r.IntN(30))*1000}
			c.ID[0], c.ID[1], c.ID[2] = byte(len(order)+1), byte(seed), byte(seed>>8)
			sent[c.ID] = c
			order = append(order, c.ID)
			if r.IntN(6) > 0 { // else it is lost on its way
				give(c)
			}
		case k < 11 && len(order) > 0: // old packets, and twice
			give(sent[order[r.IntN(len(order))]])
		case k < 14:
			b.mu.Lock()
			b.left = 1 + r.IntN(8)
			b.mu.Unlock()
		case k < 15:
			b.mu.Lock()
			b.deaf = !b.deaf
			b.mu.Unlock()
		case k < 17:
			b.mu.Lock()
			b.dead = b.dead || r.IntN(2) == 0 // a cut, or a stop in order
			b.mu.Unlock()
			l.stop()
			knownFrom = time.Now().Add(time.Duration(r.IntN(8)) * time.Second)
			l = b.start(t)
		default:
			time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
		}
	}
	// The power stays, the spool listens, and the fleet gives again what is not settled.
	b.mu.Lock()
	b.dead, b.deaf = true, false
	b.mu.Unlock()
	l.stop()
	l = b.start(t)
	for range 40 {
		for _, id := range order {
			if !settled(id) {
				give(sent[id])
			}
		}
		time.Sleep(2 * time.Second)
	}
	l.stop()
	judge(t, b, sent, order)
	judgeLocal(t, b, mine)
	if t.Failed() {
		t.Logf("schedule %d; to see it: go test ./command -run TestSchedules -command.seed %d -v", seed, seed)
	}
}

// judge compares what was told with what was done.
func judge(t *testing.T, b *board, sent map[command.ID]*command.Command, order []command.ID) {
	for _, w := range b.wrong {
		t.Error(w)
	}
	for _, id := range order {
		c, did := sent[id], b.effects[id]
		finals := map[command.State]bool{}
		for _, r := range b.told[id] {
			if r.State.Final() {
				finals[r.State] = true
			}
		}
		for _, e := range did {
			if !e.known || e.at >= c.Expires+5000 { // begun in time, and it takes up to two seconds
				t.Errorf("%s had its effect at %d, valid until %d, time known: %v", c.Name, e.at, c.Expires, e.known)
			}
		}
		// A number that was overtaken is never accepted and nothing is remembered of it: the
		// fleet hears so from the answer.
		if len(finals) == 0 && len(did) == 0 {
			continue
		}
		if len(finals) != 1 {
			t.Errorf("%s number %d of %s ended as %v, with %d effects: %+v", c.Name, c.Seq, c.Actor, finals, len(did), b.told[id])
			continue
		}
		switch {
		case (finals[command.Refused] || finals[command.Expired]) && len(did) > 0:
			t.Errorf("%s ended as %v and had %d effects", c.Name, finals, len(did))
		case finals[command.Done] && len(did) == 0:
			t.Errorf("%s is done and had no effect", c.Name)
		case len(did) > 1 && c.Name != "set" && c.Name != "collect":
			t.Errorf("%s had its effect %d times", c.Name, len(did))
		}
	}
}

// judgeLocal: what the board gave itself is told, or counted as dropped, and was done as
// it says.
func judgeLocal(t *testing.T, b *board, mine []command.Command) {
	missing := uint64(0)
	for _, c := range mine {
		did, finals := b.effects[c.ID], map[command.State]bool{}
		for _, r := range b.told[c.ID] {
			if r.State.Final() {
				finals[r.State] = true
			}
		}
		switch {
		case len(finals) == 0 && c.Name == "shutdown" && len(did) == 0: // taken though the disk was dead, as the power was
		case len(finals) == 0:
			missing++
		case len(finals) > 1:
			t.Errorf("local %s ended as %v", c.Name, finals)
		case (finals[command.Refused] || finals[command.Expired]) && len(did) > 0, finals[command.Done] && len(did) == 0:
			t.Errorf("local %s ended as %v with %d effects", c.Name, finals, len(did))
		}
		if len(did) > 1 && c.Name != "set" && c.Name != "collect" {
			t.Errorf("local %s had its effect %d times", c.Name, len(did))
		}
	}
	if missing > b.dropped {
		t.Errorf("%d of %d local commands have no final word, %d were told as dropped", missing, len(mine), b.dropped)
	}
}
