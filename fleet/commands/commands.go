// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"fulmar/command"
	"fulmar/fleet/access"
	"fulmar/fleet/commands/presence"
	"fulmar/fleet/commands/shown"
	"fulmar/fleet/commands/spec"
	"fulmar/fleet/registry/commandrows"
)

// Errors that callers act upon, beside access.ErrNotAllowed and *Error.
var (
	// ErrUnknown: there is no such command.
	ErrUnknown = commandrows.ErrUnknown
	// ErrState: its state does not allow it.
	ErrState = errors.New("not in its present state")
	// ErrSamePerson: a second person has to agree.
	ErrSamePerson = errors.New("a second person has to decide about it")
	// ErrTooMany: a bound is reached.
	ErrTooMany = errors.New("too many")
	// ErrNoBoards: the target has none.
	ErrNoBoards = errors.New("the target has no boards")
	// ErrAway is what a courier says where the board is not connected here.
	ErrAway = errors.New("the board is not connected here")
)

// errEnded: the server stops; the board says it again to the next one.
var errEnded = errors.New("the server stops")

const (
	// tickEvery is how often time is let pass.
	tickEvery = time.Second
	// resendAfter is when a board that said nothing is told again, at the least; by
	// chance up to twice that, so that boards do not speak all at once.
	resendAfter = 15 * time.Second
	// window is how many commands a board may have that have not ended, of the 64 that
	// its queue takes: people and rules on the board need room too.
	window = 32
	// maxTries bounds the new numbers of one command: 2^40 ms are 34 years of a clock
	// that was wrong.
	maxTries = 44
	// maxBoards bounds the boards of one command: what one server is meant for.
	maxBoards = 50_000
	// maxOpen bounds the boards of all commands that are not settled: 0.5 KB of memory each.
	maxOpen = 200_000
	// maxQueue bounds those of one board.
	maxQueue = 256
	// maxBatch bounds what one transaction takes of boards' words, or sends.
	maxBatch = 256
	// maxSettle bounds what one transaction settles because its time is over.
	maxSettle = 2000
	// maxWords bounds boards' words that wait for their transaction: more senders than
	// that are held back.
	maxWords = 4096
	// saveTimeout bounds one transaction.
	saveTimeout = 30 * time.Second
	// pruneEvery is how often old ones are looked for.
	pruneEvery = 5 * time.Minute
	// pruneAgain is when after a piece: boards' words go between two.
	pruneAgain = time.Second
)

// Rows keeps commands: *commandrows.Table.
type Rows interface {
	Write(ctx context.Context, c *commandrows.Change) error
	Open(ctx context.Context) ([]*commandrows.Command, []*commandrows.Board, error)
	Numbers(ctx context.Context) (last int64, seqs []commandrows.Seq, err error)
	shown.Rows
	Prune(ctx context.Context, now time.Time) (int64, error)
}

// Courier takes a signed command to a board. It does not wait; its error is ErrAway where
// the board is not connected here, and nothing is kept for it.
type Courier interface {
	SendCommand(tenant, board, id string, envelope []byte) error
}

// Fleet knows the boards.
type Fleet interface {
	// Boards gives the names of those that a caller sees and a query matches; "" is all.
	Boards(ctx context.Context, by access.Caller, query string) ([]string, error)
	// Kinds gives the names of the commands that each board of a tenant says it has. A
	// board that has not told is left out.
	Kinds(ctx context.Context, tenant string) (map[string][]string, error)
}

// Config joins commands to the rest.
type Config struct {
	Rows    Rows
	Sign    func(payload []byte) (envelope []byte, err error)
	Courier Courier
	Fleet   Fleet
	// Fields gives what a command of this name takes; false: not known here, and a user's
	// own command is checked by its board alone.
	Fields func(name string) (fields []Field, ok bool)
	// Approve lists the names that want a second person.
	Approve []string
	Log     *slog.Logger
}

type (
	// Field is one argument of a command.
	Field = spec.Field
	// Error is about one field of what was given.
	Error = spec.Error
	// Rules is what the config of a server says of commands.
	Rules = spec.Rules
)

type key struct{ tenant, board string }

type number struct {
	tenant string
	id     int64
}

// word is a board's word that waits to be stored.
type word struct {
	key
	report *command.Report
	done   chan<- error
}

// Filter narrows a list of commands.
type Filter = shown.Filter

// Commands is the commands of all tenants.
type Commands struct {
	*shown.Reader // List, Get, OfBoard, Kinds
	cfg           Config

	mu     sync.Mutex
	heads  map[number]*commandrows.Command // with boards without a last word
	items  map[command.ID]*item            // those boards
	queues map[key]*queue                  // the same, in order
	seqs   map[key]uint64
	last   int64 // number of the newest command
	due    map[key]struct{}

	here presence.Boards

	words chan word
	wake  chan struct{}
	ended chan struct{} // closed when Run ends
}

// New reads what is not settled. Nothing is sent before Run.
func New(ctx context.Context, cfg Config) (*Commands, error) {
	c := &Commands{
		Reader: shown.New(cfg.Rows, cfg.Fleet.Kinds, cfg.Approve), cfg: cfg, heads: map[number]*commandrows.Command{}, items: map[command.ID]*item{}, queues: map[key]*queue{}, seqs: map[key]uint64{}, due: map[key]struct{}{},
		words: make(chan word, maxWords), wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	last, seqs, err := cfg.Rows.Numbers(ctx)
	if err != nil {
		return nil, err
	}
	c.last = last
	for _, s := range seqs {
		c.seqs[key{s.Tenant, s.Board}] = s.Seq
	}
	heads, boards, err := cfg.Rows.Open(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range heads {
		c.heads[number{h.Tenant, h.ID}] = h
	}
	for _, b := range boards {
		head := c.heads[number{b.Tenant, b.Command}]
		if head == nil {
			return nil, fmt.Errorf("commands: %s of board %s has no command %s", command.ID(b.ID), b.Board, shown.Name(b.Command))
		}
		c.add(head, b)
	}
	return c, nil
}

// Run sends commands until they are settled, and takes boards' words, until ctx ends.
func (c *Commands) Run(ctx context.Context) error {
	defer close(c.ended)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	prune := time.NewTimer(pruneEvery)
	defer prune.Stop()
	for {
		select { // boards that wait for an answer first
		case w := <-c.words:
			c.take(ctx, w)
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return nil
		case w := <-c.words:
			c.take(ctx, w)
		case <-c.wake:
			c.pump(ctx)
		case <-tick.C:
			c.settle(ctx)
		case <-prune.C:
			prune.Reset(c.prune(ctx))
		}
	}
}

// prune drops a piece of what is over, and tells after how long the next is looked for: at
// once where there may be more, for boards may bring what they did as fast as they like.
func (c *Commands) prune(ctx context.Context) (next time.Duration) {
	n, err := c.cfg.Rows.Prune(ctx, time.Now())
	if err != nil {
		c.cfg.Log.Error("old commands are not dropped; tried again", "error", err.Error())
	} else if n > 0 {
		c.cfg.Log.Info("old commands dropped: over the bounds of age or number", "commands", n)
		return pruneAgain
	}
	return pruneEvery
}

// Hello tells that a board is there, or there again: it hears at once what waits for it.
func (c *Commands) Hello(tenant, board string) {
	c.here.Came(presence.Board{Tenant: tenant, Name: board})
	c.nudge()
}

// nudge lets Run look at what is due.
func (c *Commands) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// greet takes over who has come; c.mu is held.
func (c *Commands) greet() {
	c.here.Fresh(func(b presence.Board) {
		if k := (key{b.Tenant, b.Name}); c.queues[k] != nil {
			c.due[k] = struct{}{}
		}
	})
}

// add puts a row into memory; c.mu is held.
func (c *Commands) add(head *commandrows.Command, b *commandrows.Board) {
	k := key{b.Tenant, b.Board}
	q := c.queues[k]
	if q == nil {
		q = new(queue)
		c.queues[k] = q
	}
	it := &item{Board: b, cmd: head}
	c.items[b.ID] = it
	q.items = append(q.items, it)
	c.due[k] = struct{}{}
}

// drop takes a row out of memory; c.mu is held.
func (c *Commands) drop(id command.ID) {
	it := c.items[id]
	if it == nil {
		return
	}
	delete(c.items, id)
	k := key{it.Tenant, it.Board.Board}
	q := c.queues[k]
	q.items = slices.DeleteFunc(q.items, func(x *item) bool { return x == it })
	for _, x := range q.items {
		if command.ID(it.Target) == x.ID {
			x.again = time.Time{} // its cancel is over: what became of it is asked now
		}
	}
	if len(q.items) == 0 {
		delete(c.queues, k)
		return
	}
	c.due[k] = struct{}{}
}
