// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package powerloss_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/storage"
)

// worker is one session with the spool, in a process of its own. It notes what it
// was promised after the promise, and what it acknowledges before it does so.
type worker struct {
	p       profile
	dir     string
	session int
	rng     *rand.Rand
	notes   *os.File
	s       *storage.Spool
	epochs  [schema.NumClasses]uint64
	queued  atomic.Uint64 // highest metric whose Append returned and was noted
	end     time.Time
}

func (w *worker) note(format string, args ...any) {
	if _, err := fmt.Fprintf(w.notes, format+"\n", args...); err != nil {
		die(err)
	}
}

// boot is the clock of a boot of its own: each start here follows a power loss.
func boot() schema.Clock { return schema.NewClock(rand.Uint64(), time.Minute) }

func die(err error) {
	fmt.Fprintln(os.Stderr, "worker:", err)
	os.Exit(2)
}

// work runs a session to its end: a clean close, or as if killed.
func work(p profile, mnt, notes string, session int, seed uint64) {
	f, err := os.OpenFile(notes, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		die(err)
	}
	w := &worker{p: p, dir: mnt, session: session, rng: rand.New(rand.NewPCG(seed, uint64(session))), notes: f}
	w.note("open %d", session)
	cfg := p.config(filepath.Join(mnt, "spool"))
	cfg.Clock = boot()
	if w.s, err = storage.Open(cfg); err != nil {
		die(err)
	}
	for _, cur := range w.s.Cursors() {
		w.epochs[cur.Class] = cur.Epoch
	}
	w.end = time.Now().Add(p.session)
	w.s.Online(w.rng.IntN(2) == 0)
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	running := w.rng.IntN(5) > 0 // without Run each Append commits by itself
	if running {
		go func() { ran <- w.s.Run(ctx) }()
	} else {
		ran <- nil
	}
	w.everything(p.push)
	if p.kill && w.rng.IntN(2) == 0 {
		os.Exit(0)
	}
	stop()
	if err := <-ran; err != nil {
		die(err)
	}
	w.note("closing")
	if err := w.s.Close(); err != nil {
		die(err)
	}
	w.note("closed")
}

// everything runs all that uses the spool beside one another until the end.
func (w *worker) everything(push bool) {
	var wg sync.WaitGroup
	for _, c := range schema.Classes() {
		makers := 2
		if c == schema.ClassMetric {
			makers = 1
		}
		for m := range makers {
			rng := rand.New(rand.NewPCG(w.rng.Uint64(), 1))
			wg.Go(func() { w.append(c, int(c)*4+m, rng) })
		}
	}
	drain, flush, side := rand.New(rand.NewPCG(w.rng.Uint64(), 2)), rand.New(rand.NewPCG(w.rng.Uint64(), 3)), rand.New(rand.NewPCG(w.rng.Uint64(), 4))
	wg.Go(func() { w.drain(drain) })
	wg.Go(func() { w.flush(flush) })
	wg.Go(func() { w.files(side, push) })
	wg.Wait()
}

func (w *worker) append(c schema.Class, maker int, rng *rand.Rand) {
	for n := 0; time.Now().Before(w.end); n++ {
		i := id(w.session, maker, n)
		seq, err := w.s.Append(context.Background(), c, payload(c, i))
		switch {
		case errors.Is(err, storage.ErrFull) && c == schema.ClassMetric: // told as a gap
		case err != nil:
			die(fmt.Errorf("append to %s: %w", c, err))
		case c == schema.ClassMetric:
			w.note("queued %d %x %d %x", c, w.epochs[c], seq, i)
			w.queued.Store(seq)
		default:
			w.note("ok %d %x %d %x", c, w.epochs[c], seq, i)
		}
		switch {
		case c == schema.ClassAlarm: // the alarm class never evicts
			time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
		case c == schema.ClassMetric && w.p.tight:
			time.Sleep(time.Duration(rng.IntN(200)) * time.Microsecond)
		case rng.IntN(8) == 0:
			time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
		case c == schema.ClassMetric:
			time.Sleep(300 * time.Microsecond)
		}
	}
}

// drain is the fleet: it takes what it reads, in runs and not always in order,
// leaves some for later and refuses a few.
func (w *worker) drain(rng *rand.Rand) {
	var from [schema.NumClasses]uint64
	for time.Now().Before(w.end) {
		c := schema.Class(rng.IntN(schema.NumClasses))
		if w.p.tight && rng.IntN(4) > 0 { // too slow for what comes
			c = schema.ClassAlarm
		}
		recs, err := w.s.Read(c, from[c], 1+rng.IntN(120), 64<<10)
		if err != nil {
			die(err)
		}
		if len(recs) == 0 {
			from[c] = 0
			time.Sleep(time.Duration(rng.IntN(5)) * time.Millisecond)
			continue
		}
		from[c] = recs[len(recs)-1].Seq + 1
		w.take(c, recs, rng)
		if rng.IntN(50) == 0 {
			w.s.Online(rng.IntN(2) == 0)
		}
	}
}

// take settles records as the link does: runs without holes.
func (w *worker) take(c schema.Class, recs []schema.Stored, rng *rand.Rand) {
	for len(recs) > 0 {
		n := 1
		for n < len(recs) && recs[n].Seq == recs[n-1].Seq+1 && rng.IntN(30) > 0 {
			n++
		}
		run := recs[:n]
		recs = recs[n:]
		switch rng.IntN(12) {
		case 0: // for later
			continue
		case 1:
			if kind, _, _ := identify(c, run[0].Payload); kind != isGap {
				w.note("refuse %d %x %d", c, run[0].Epoch, run[0].Seq)
				err := w.s.Refuse(c, run[0].Epoch, run[0].Seq, schema.ReasonOversize)
				if err != nil && (c != schema.ClassMetric || !errors.Is(err, storage.ErrUnknown)) { // one in memory cannot be refused
					die(err)
				}
				continue
			}
		}
		var b strings.Builder
		for _, r := range run {
			kind, i, gap := identify(c, r.Payload)
			switch kind {
			case isWrong:
				die(fmt.Errorf("%s %d reads wrong: %x", c, r.Seq, r.Payload))
			case isGap:
				fmt.Fprintf(&b, "gap %d %x %d %d %d\n", gap.Class, gap.Epoch, gap.First, gap.Last, gap.Reason)
			}
			fmt.Fprintf(&b, "ack %d %x %d %x\n", c, r.Epoch, r.Seq, i)
		}
		w.note("%s", b.String())
		if err := w.s.Ack(c, run[0].Epoch, run[0].Seq, run[len(run)-1].Seq); err != nil {
			die(err)
		}
	}
}

func (w *worker) flush(rng *rand.Rand) {
	c := schema.ClassMetric
	for time.Now().Before(w.end) {
		last := w.queued.Load()
		if err := w.s.Flush(); err != nil {
			die(err)
		}
		w.note("flushed %d %x %d", c, w.epochs[c], last)
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
	}
}

// files writes a small file again and again, and pushes pages of the spool's files
// towards the disk as memory pressure would, in no order and without a flush.
func (w *worker) files(rng *rand.Rand, push bool) {
	path := filepath.Join(w.dir, "state")
	for n := 0; time.Now().Before(w.end); n++ {
		if n%8 == 0 {
			i := id(w.session, 63, n)
			w.note("file %x", i)
			if err := atomicfile.WriteFile(path, payload(schema.ClassEvent, i), 0o600); err != nil {
				die(err)
			}
			w.note("filed %x", i)
		}
		if push {
			found, _ := filepath.Glob(filepath.Join(w.dir, "spool", "*", "*"))
			for _, f := range found {
				if rng.IntN(2) == 0 {
					pushFile(f)
				}
			}
		}
		time.Sleep(time.Duration(1+rng.IntN(8)) * time.Millisecond)
	}
}

func pushFile(path string) {
	f, err := os.Open(path)
	if err != nil {
		return // it was unlinked meanwhile
	}
	defer f.Close()
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE) // only a push
}
