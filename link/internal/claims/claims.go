// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package claims

import (
	"log/slog"
	"slices"
	"sort"
	"sync"
	"time"

	"fulmar/link/internal/flights"
	"fulmar/schema"
)

const (
	// maxEpochs bounds the epochs remembered. A hello names at most MaxCursors at one
	// time; four times that covers restarts of a spool in memory mode, which begins a
	// new one each time. The word about one that is forgotten counts as false.
	maxEpochs = 4 * schema.MaxCursors
	// maxRuns bounds the runs remembered of one epoch. What goes out is a run of the
	// backlog and one of what is live for each connection, and the two meet. Beyond it
	// the smallest hole counts as sent: a false word may pass, a true one is not blamed.
	maxRuns = 64
	// tellEvery is how often the log says so.
	tellEvery = time.Minute
)

// Book remembers what may be at the fleet. Its zero value is empty.
type Book struct {
	mu     sync.Mutex
	epochs []epoch // in the order they were met
	count  uint64
	told   time.Time
}

type epoch struct {
	class  schema.Class
	number uint64
	runs   []flights.Span // rising, with holes between
}

// Met notes where the spool stands. Of an epoch that was not known everything up to
// its last number may have been sent, by a run of this program before.
func (b *Book) Met(cursors []schema.Cursor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range cursors {
		if b.of(c.Class, c.Epoch) != nil {
			continue
		}
		e := b.meet(c.Class, c.Epoch)
		if c.Last > 0 {
			e.add(flights.Span{1, c.Last})
		}
	}
}

// Out notes what is about to go out.
func (b *Book) Out(f *flights.Flight) {
	if len(f.Runs) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.of(f.Class, f.Epoch)
	if e == nil { // it came in the middle of a connection, as with its disk
		e = b.meet(f.Class, f.Epoch)
		e.add(flights.Span{1, f.Runs[0][0]})
	}
	for _, r := range f.Runs {
		e.add(r)
	}
}

// Check looks at an acknowledgement of the fleet. One that names numbers which never
// went out is counted, and the log says so, once a minute.
func (b *Book) Check(a *schema.Ack, log *slog.Logger) {
	b.mu.Lock()
	defer b.mu.Unlock()
	never, what := a.Ranges, "of an epoch that this board does not know"
	if e := b.of(a.Class, a.Epoch); e != nil {
		never = flights.Subtract(a.Ranges, e.runs)
		if len(never) == 0 {
			return
		}
		what = "not sent yet"
		if len(e.runs) == 0 || never[0][0] > e.runs[len(e.runs)-1][1] {
			what = "above everything sent"
		}
	}
	b.count++
	if now := time.Now(); b.count == 1 || now.Sub(b.told) >= tellEvery {
		b.told = now
		log.Error("the fleet acknowledges records that were never sent, "+what+"; they are kept and will be sent. "+
			"Its books are of another board: look for a second board of this name, or a board that was set up anew under an old one",
			"class", a.Class.String(), "epoch", a.Epoch, "first", never[0][0], "last", never[len(never)-1][1], "ranges", len(never), "so_far", b.count)
	}
}

// False counts the acknowledgements that named numbers which never went out.
func (b *Book) False() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

func (b *Book) of(c schema.Class, number uint64) *epoch {
	for i := range b.epochs {
		if b.epochs[i].class == c && b.epochs[i].number == number {
			return &b.epochs[i]
		}
	}
	return nil
}

func (b *Book) meet(c schema.Class, number uint64) *epoch {
	if len(b.epochs) >= maxEpochs {
		b.epochs = slices.Delete(b.epochs, 0, 1)
	}
	b.epochs = append(b.epochs, epoch{class: c, number: number})
	return &b.epochs[len(b.epochs)-1]
}

// add unites a run with the others.
func (e *epoch) add(r flights.Span) {
	i := sort.Search(len(e.runs), func(i int) bool { return e.runs[i][1] >= r[0]-1 })
	j := i
	for ; j < len(e.runs) && e.runs[j][0]-1 <= r[1]; j++ {
		r = flights.Span{min(r[0], e.runs[j][0]), max(r[1], e.runs[j][1])}
	}
	e.runs = slices.Replace(e.runs, i, j, r)
	if len(e.runs) <= maxRuns {
		return
	}
	least := 1
	for k := 2; k < len(e.runs); k++ {
		if e.runs[k][0]-e.runs[k-1][1] < e.runs[least][0]-e.runs[least-1][1] {
			least = k
		}
	}
	e.runs[least-1][1] = e.runs[least][1]
	e.runs = slices.Delete(e.runs, least, least+1)
}
