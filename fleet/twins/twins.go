// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package twins keeps the fleet's side of the boards' twins: it takes what boards say,
// lets people change what boards shall be, and brings it to them.
//
// What is said is stored before it is answered. A twin lives in the database alone:
// what is held of a board in memory is the digest by which its word "nothing has
// changed" is known, so that the hellos of a whole fleet cost neither reads nor
// writes. Writes of many boards go into one commit.
package twins

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/fleet/registry/twinrows"
	"fulmar/fleet/twins/told"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// Errors that callers act upon.
var (
	// ErrStale: somebody changed the twin since it was read.
	ErrStale = errors.New("changed by somebody else meanwhile")
	// ErrInvalid: what was asked for cannot be in a twin. The text says what and why.
	ErrInvalid = told.ErrInvalid
	// ErrNoConflict: the key is not in conflict, or no longer.
	ErrNoConflict = told.ErrNoConflict
	// ErrFull: a bound on what is kept is reached.
	ErrFull = errors.New("no room")
	// ErrStopped: the server is ending.
	ErrStopped = errors.New("twins are not kept any more: the server ends")
	// ErrAway is the courier's word for a board that is not connected.
	ErrAway = errors.New("the board is not connected")
)

// Bounds of what is kept in memory and in the database.
const (
	// maxTwins is what the registry holds of boards, and some that were forgotten.
	maxTwins = 60_000
	// seenEvery is how often it is written when boards last spoke of their twins.
	seenEvery = time.Minute
	// warnEvery is how often it is logged of one board that its word was not taken.
	warnEvery = time.Minute
)

// Courier brings a message to a board that is connected; [ErrAway] where it is not.
type Courier interface {
	SendTwin(tenant, board string, d *wire.Down) error
}

// Config is what the twins work with.
type Config struct {
	Rows *twinrows.Table
	// Sign puts a statement into an envelope signed by the fleet's command key, Open is
	// its other way, for envelopes of this fleet alone: fleet/keyring.
	Sign func(statement []byte) (envelope []byte, err error)
	Open func(envelope []byte) (statement []byte, err error)
	// Takes tells whether a board takes an envelope by the keys in force: one that was
	// signed with a key that is dropped is signed anew. nil: all are taken.
	Takes   func(envelope []byte) bool
	Courier Courier
	// Changed hears of each twin whose row has changed, after the commit; it may not
	// wait. nil: nobody does.
	Changed func(tenant, board string)
	Log     *slog.Logger
}

// Stats are counters since the start.
type Stats struct {
	Messages uint64 // of boards
	Same     uint64 // of these: nothing new, answered without the database
	Stored   uint64 // of these: written
	Late     uint64 // of these: of a connection that is over
	Refused  uint64 // of these: with a part that was not taken
	Edits    uint64 // desired versions made
	Pushed   uint64 // messages sent to boards without being asked
	Commits  uint64
	Open     int64 // boards that were sent something and have not said that they have it
}

// Twins is the twins of all boards.
type Twins struct {
	cfg Config
	n   struct{ messages, same, stored, late, refused, edits, pushed, commits atomic.Uint64 }

	queue   chan *job
	stopped chan struct{} // closed when no more is written
	rows    atomic.Int64  // of the table

	mu     sync.Mutex
	boards map[twinrows.Key]*entry
	spoke  map[twinrows.Key]time.Time // not written yet
	await  map[twinrows.Key]*awaited
}

// New makes the twins; they are written while Run runs.
func New(cfg Config) *Twins {
	return &Twins{
		cfg: cfg, queue: make(chan *job, queueLen), stopped: make(chan struct{}),
		boards: map[twinrows.Key]*entry{}, spoke: map[twinrows.Key]time.Time{}, await: map[twinrows.Key]*awaited{},
	}
}

// Stats tells the counters.
func (x *Twins) Stats() Stats {
	x.mu.Lock()
	open := int64(len(x.await))
	x.mu.Unlock()
	return Stats{
		Messages: x.n.messages.Load(), Same: x.n.same.Load(), Stored: x.n.stored.Load(), Late: x.n.late.Load(), Refused: x.n.refused.Load(),
		Edits: x.n.edits.Load(), Pushed: x.n.pushed.Load(), Commits: x.n.commits.Load(), Open: open,
	}
}

// entry is what is held of a board in memory: 200 bytes. It is owned by who has locked it.
type entry struct {
	mu   sync.Mutex
	refs int // who holds it or waits for it; of Twins.mu

	conn uint64 // of the board, 0: none in this life of the process
	read bool   // head is as in the database
	row  bool   // there is a row
	head twinrows.Head
	warn time.Time // last log line
	// sure: the board has said since this process began that it knows no more than the
	// database, which is no old one then. mine: the twin's life began in this process.
	sure, mine bool
	life       string // as it is in the row
}

// hold locks what is held of a board.
func (x *Twins) hold(k twinrows.Key) *entry {
	x.mu.Lock()
	e := x.boards[k]
	if e == nil {
		if len(x.boards) >= maxTwins {
			x.shrink()
		}
		e = new(entry)
		x.boards[k] = e
	}
	e.refs++
	x.mu.Unlock()
	e.mu.Lock()
	return e
}

// shrink forgets some boards that nobody is at; they are read again. x.mu is held.
func (x *Twins) shrink() {
	n := 0
	for k, e := range x.boards {
		if e.refs == 0 {
			delete(x.boards, k)
			if n++; n > maxTwins/10 {
				return
			}
		}
	}
}

func (x *Twins) release(e *entry) {
	e.mu.Unlock()
	x.mu.Lock()
	e.refs--
	x.mu.Unlock()
}

// look makes e's head that of the database; e is held.
func (x *Twins) look(ctx context.Context, k twinrows.Key, e *entry) error {
	if e.read {
		return nil
	}
	h, ok, err := x.cfg.Rows.Head(ctx, k)
	if err != nil {
		return err
	}
	e.head, e.row, e.read = h, ok, true
	return nil
}

// open reads a board's twin, which is e's; e is held. A twin that is new, or whose
// database was restored, begins a new life, as does one whose database may have been put
// back without a word (doubt): no edit is ever named as one that is forgotten.
func (x *Twins) open(ctx context.Context, k twinrows.Key, e *entry, doubt bool) (*twin.Fleet, error) {
	h, body, ok, err := x.cfg.Rows.Get(ctx, k)
	if err != nil {
		return nil, err
	}
	if !ok && x.rows.Load() >= maxTwins {
		return nil, fmt.Errorf("%w: %d twins are kept; wipe boards that are gone", ErrFull, maxTwins)
	}
	e.head, e.row, e.read, e.life = h, ok, true, h.Life
	if !ok {
		// Nobody knows whether the board was there before: it is asked first.
		if body, err = x.blank(k); err != nil {
			return nil, err
		}
	}
	if h.Life == "" || doubt && !e.mine {
		e.head.Life = newLife()
	}
	return x.load(k, e.head.Life, body)
}

func (x *Twins) load(k twinrows.Key, life string, body []byte) (*twin.Fleet, error) {
	f, err := twin.NewFleet(twin.FleetConfig{Tenant: k.Tenant, Board: k.Board, Instance: life, Sign: x.cfg.Sign, Open: x.cfg.Open}, body)
	if err != nil {
		return nil, fmt.Errorf("twin of %s: %w", k.Board, err)
	}
	return f, nil
}

// blank is what a twin without a past saves, of a life in which nothing was edited.
func (x *Twins) blank(k twinrows.Key) ([]byte, error) {
	f, err := x.load(k, twin.InstanceOf('f', 0, 0), nil)
	if err != nil {
		return nil, err
	}
	return f.Save()
}

// newLife names a life. Its first part rises, so that the oldest are known where there
// are too many; the second makes it unique whatever the clock says.
func newLife() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return twin.InstanceOf('f', uint32(max(0, time.Now().Unix())), binary.BigEndian.Uint32(b[:]))
}

// Forget removes all that is known of a board's twin: of a board that is wiped. Where the
// board comes back with what this fleet signed, that is taken again.
func (x *Twins) Forget(ctx context.Context, tenant, board string) error {
	k := twinrows.Key{Tenant: tenant, Board: board}
	e := x.hold(k)
	defer x.release(e)
	if err := x.look(ctx, k, e); err != nil {
		return err
	}
	row := e.row
	err := x.commit(ctx, func(ctx context.Context, tx *sql.Tx) error { return x.cfg.Rows.Forget(ctx, tx, k) })
	e.read = false
	if err != nil {
		return err
	}
	if row {
		x.rows.Add(-1)
	}
	x.mu.Lock()
	delete(x.await, k)
	delete(x.spoke, k)
	x.mu.Unlock()
	x.changed(k)
	return nil
}

func (x *Twins) changed(k twinrows.Key) {
	if x.cfg.Changed != nil {
		x.cfg.Changed(k.Tenant, k.Board)
	}
}
