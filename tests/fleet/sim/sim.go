// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"fulmar/internal/jointoken"
	"fulmar/internal/run"
	"fulmar/schema"
)

const (
	// MaxBoards bounds a fleet: what one server is meant for.
	MaxBoards = 50_000
	// stopGrace is how long the boards get to say goodbye.
	stopGrace = 10 * time.Second
)

// Config shapes a fleet.
type Config struct {
	// Token is the text of a join token that lets in as many boards; it names the
	// fleet's address and authority. Not needed where Dir holds all of them.
	Token string
	// Fleet is host:port of the fleet's HTTPS, where the token names another or none.
	Fleet string
	// Dir keeps keys and certificates, so that the same boards come again at the next
	// start; "" keeps nothing.
	Dir    string
	Boards int
	Sites  int    // 0: one for ten boards
	Seed   uint64 // of all that is random in what boards feel and see
	// Every is the time between two batches of samples of a board; 0 is 5 s, below 0 none.
	Every time.Duration
	// EventEvery is the time between two events of a camera, on average; 0 is 15 s, below 0
	// none. PictureEvery the same of those with a picture; 0 is 60 s, below 0 none.
	EventEvery, PictureEvery time.Duration
	Sick                     bool          // some boards have a trouble, see [Trouble]
	Onset                    time.Duration // troubles begin after one to two of it; 0 is 20 s
	Ramp                     time.Duration // first connections are spread over it; 0 is 10 ms a board
	// Numbered adds the series sim.batch_count, which counts a board's batches from 1: for
	// tests that look for each in the server's tables.
	Numbered bool
	// Spread dials each site's boards from an address of its own, 127.1.0.SITE: for a fleet
	// on loopback, which bounds enrolments and ports by address.
	Spread bool
	// Packed bounds the records of one message; 0 is 64. With 1 each record is a message.
	Packed int
	// Made is told of each record when it is made, from many goroutines. Nil: nobody is.
	Made func(r schema.ID)
	// Acked is told of each record that the server has acknowledged, from many goroutines.
	// Nil: nobody is.
	Acked func(r schema.ID)
	// Became is told when the server has acknowledged a board's word that it is as a version
	// of its twin wants it, from many goroutines. Nil: nobody is.
	Became func(board string, version uint64)
	Log    *slog.Logger // nil: nothing is logged
}

func (c *Config) complete() error {
	if c.Boards < 1 || c.Boards > MaxBoards {
		return fmt.Errorf("simulate %d boards: wants 1 to %d", c.Boards, MaxBoards)
	}
	if c.Sites <= 0 {
		c.Sites = (c.Boards + 9) / 10
	}
	c.Sites = min(c.Sites, c.Boards, 250) // 127.1.0.1 to 127.1.0.250
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Packed <= 0 {
		c.Packed = maxPacked
	}
	def(&c.Every, 5*time.Second)
	def(&c.EventEvery, 15*time.Second)
	def(&c.PictureEvery, time.Minute)
	def(&c.Onset, 20*time.Second)
	def(&c.Ramp, time.Duration(c.Boards)*10*time.Millisecond)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Stats are counters since the start, and what is now.
type Stats struct {
	Connected int64 // boards whose hello was answered
	Connects  int64 // handshakes and CONNECTs that went well
	Failed    int64 // connections that did not come to a hello/ack
	SentAway  int64 // hellos answered with a time to come back
	Lost      int64 // connections that ended though the board wanted them
	Messages  int64 // acknowledged PUBLISHes
	Records   int64 // records in them
	Waiting   int64 // records made and not acknowledged
	Dropped   int64 // records given up for want of room, sent as gaps
}

type counters struct {
	connected, connects, failed, sentAway, lost, messages, records, waiting, dropped atomic.Int64
}

// Fleet is a number of boards.
type Fleet struct {
	cfg    Config
	token  *jointoken.Token // nil: none was given
	boards []*board
	sights []sight
	began  time.Time
	n      counters
}

// New makes a fleet; nothing is asked of the server yet.
func New(cfg Config) (*Fleet, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	f := &Fleet{cfg: cfg}
	if cfg.Token != "" {
		t, err := jointoken.Parse(cfg.Token)
		if err != nil {
			return nil, fmt.Errorf("simulate boards: %w", err)
		}
		f.token = &t
		if cfg.Fleet == "" {
			f.cfg.Fleet = t.Address
		}
	}
	if f.cfg.Fleet == "" {
		return nil, errors.New("simulate boards: neither the token nor Fleet names the fleet's address")
	}
	if cfg.EventEvery > 0 {
		var err error
		if f.sights, err = drawSights(cfg.Seed, cfg.PictureEvery > 0); err != nil {
			return nil, err
		}
	}
	for i := range cfg.Boards {
		f.boards = append(f.boards, f.newBoard(i))
	}
	return f, nil
}

// Board tells who a board is.
type Board struct {
	Name      string
	Site      string
	Lat, Lon  float64 // of the site
	Trouble   Trouble
	Cameras   []string
	Connected bool
}

// Boards lists the fleet, in no order that means anything.
func (f *Fleet) Boards() []Board {
	out := make([]Board, len(f.boards))
	for i, b := range f.boards {
		out[i] = Board{Name: b.name, Site: b.site.name, Lat: b.site.lat, Lon: b.site.lon, Trouble: b.trouble, Connected: b.isUp.Load()}
		for _, c := range b.cameras {
			out[i].Cameras = append(out[i].Cameras, c.name)
		}
	}
	return out
}

// Stats tells the counters.
func (f *Fleet) Stats() Stats {
	n := &f.n
	return Stats{
		Connected: n.connected.Load(), Connects: n.connects.Load(), Failed: n.failed.Load(), SentAway: n.sentAway.Load(), Lost: n.lost.Load(),
		Messages: n.messages.Load(), Records: n.records.Load(), Waiting: n.waiting.Load(), Dropped: n.dropped.Load(),
	}
}

// Run lets the enrolled boards live until the context ends; then they say goodbye.
func (f *Fleet) Run(ctx context.Context) error {
	f.began = time.Now()
	group := run.New(ctx)
	for _, b := range f.boards {
		if b.id == nil {
			return fmt.Errorf("simulate boards: %s is not enrolled; call Enrol first", b.name)
		}
	}
	for _, b := range f.boards {
		first := time.Duration(rand.Int64N(int64(f.cfg.Ramp) + 1))
		group.Go(b.name, func(ctx context.Context) error { return b.live(ctx, first) })
	}
	return group.Wait(stopGrace)
}

// Run enrols a fleet and lets it live until the context ends.
func Run(ctx context.Context, cfg Config) error {
	f, err := New(cfg)
	if err != nil {
		return err
	}
	if err := f.Enrol(ctx); err != nil {
		return err
	}
	return f.Run(ctx)
}
