// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/command"
	"fulmar/command/dispatch"
	"fulmar/device/schedule"
	"fulmar/internal/run"
	"fulmar/schema"
	"fulmar/storage/journal"
)

const (
	// JournalName is the journal's file in the data folder.
	JournalName = "commands.journal"
	// maxArrived is how many envelopes wait to be verified; what does not fit the fleet
	// gives again.
	maxArrived = 64
	// takeTime bounds how long the journal may hold up one that came: ten slow flushes of
	// an SD card.
	takeTime = 5 * time.Second
	// sendTime bounds one report on a connection: the link has a watchdog of its own.
	sendTime = 30 * time.Second
	// A challenge is for a person who types: it is good for so long, and so many at once.
	challengeLife = time.Minute
	maxChallenges = 64
	// complainEvery is how often the log is told of what nobody signed.
	complainEvery = time.Minute
	stopGrace     = 12 * time.Second // the dispatcher's own is 10 s
)

// Config is what the commands of a board work with.
type Config struct {
	// Address is whose board this is; both are "" before it has a name, and then only people
	// and rules on it give commands.
	Address func() (tenant, board string)
	Dir     string // the board's data folder
	Clock   schema.Clock
	// Now is the fleet's time in ms since 1970, and whether it is known.
	Now func() (ms uint64, known bool)
	// Open gives what the fleet signed as a command.
	Open func(envelope []byte) ([]byte, error)
	// Operator gives what an operator's key signed as a command, and that key's id.
	Operator func(envelope []byte) (payload []byte, keyID string, err error)
	// Send publishes on the channel schema.ChanResult of the command id, in the connection
	// that is up; nil says that the fleet has it.
	Send func(ctx context.Context, id string, payload []byte) error
	Log  *slog.Logger

	// What the board's own commands act upon; where one is nil the board does not have the
	// commands that need it.
	Outputs  Outputs
	Settings Settings
	Worker   Worker
	Latest   *schedule.Latest // of the sensors
	// Stop ends the program in order, so that who keeps it starts it again.
	Stop    func(why string)
	Release string
	// Diagnose gives the parts of a diagnostics archive, what matters most first.
	Diagnose func(ctx context.Context, add func(name string, data []byte))
	// Keep brings a file to the fleet as pictures go there.
	Keep func(ctx context.Context, name, media, source string, data []byte) error

	// User are the commands that were added to this board.
	User []command.Offer
}

// Service is the commands of one board. Run must run for the others to return.
type Service struct {
	cfg     Config
	kinds   []command.Kind
	d       *dispatch.Dispatcher
	journal *journal.Journal
	arrived chan []byte
	dropped atomic.Uint64
	forged  atomic.Uint64
	told    atomic.Uint64

	mu         sync.Mutex
	up         context.Context // of the connection; nil while there is none
	changed    chan struct{}   // closed when up changes
	challenges []challenge
	watchers   map[chan command.Report]bool
	complained time.Time
}

type challenge struct {
	id  command.ID
	end time.Time
}

// Stats are counts since the start.
type Stats struct {
	Dropped uint64 // envelopes that came faster than they could be looked at
	Forged  uint64 // not signed by a key that may
	Told    uint64 // ends that the fleet has
}

// Open opens the journal and readies the commands. It does nothing before Run. A journal
// whose disk fails is no error: then only safety commands are done, and the log says so.
func Open(cfg Config) (*Service, error) {
	s := &Service{
		cfg: cfg, arrived: make(chan []byte, maxArrived), changed: make(chan struct{}), watchers: map[chan command.Report]bool{},
	}
	var handlers []command.Handler
	for _, o := range s.offers() {
		s.kinds = append(s.kinds, o.Kind)
		handlers = append(handlers, handler(o))
	}
	var log dispatch.Log
	j, entries, err := journal.Open(filepath.Join(cfg.Dir, JournalName))
	switch {
	case err == nil:
		log, s.journal = j, j
		if j.Damage != "" {
			cfg.Log.Error("the journal of commands was damaged: what it lost may be told as never accepted", "damage", j.Damage)
		}
	case errors.Is(err, journal.ErrInUse):
		return nil, fmt.Errorf("commands: %w", err)
	default:
		cfg.Log.Error("the journal of commands cannot be opened: only safety commands are done until the next start", "err", err)
		log = deadLog{err}
	}
	s.d, err = dispatch.New(dispatch.Config{
		Address: cfg.Address, Open: cfg.Open, Now: cfg.Now, Clock: cfg.Clock,
		Handlers: handlers, Log: log, Entries: entries, Tell: s.tell, Saw: s.saw, Slog: cfg.Log,
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// offers are all commands of the board. One that a user added and that is not whole, or
// has the name of another, is left out and said: it must not keep a board from starting.
func (s *Service) offers() []command.Offer {
	all := s.builtins()
	for _, o := range s.cfg.User {
		h := handler(o)
		taken := slices.ContainsFunc(all, func(b command.Offer) bool { return b.Kind.Name == o.Kind.Name })
		if err := h.Validate(); err != nil || taken || o.Kind.Name == command.NameGap {
			s.cfg.Log.Error("a command that was added to this board is left out", "command", o.Kind.Name, "name_taken", taken, "err", err)
			continue
		}
		o.Kind.User, o.Kind.Lane, o.Kind.Safety, o.Kind.Crash = true, h.Lane.String(), h.Lane == command.Safety, crashUnknown
		if h.Repeat {
			o.Kind.Crash = crashRepeat
		} else if h.Happened != nil {
			o.Kind.Crash = crashAsk
		}
		all = append(all, o)
	}
	return all
}

// handler makes the handler of an offer: its name, lane and check are those of the kind.
func handler(o command.Offer) command.Handler {
	h, own := o.Handler, o.Handler.Check
	h.Name = o.Kind.Name
	h.Check = func(args []byte) error {
		if _, err := o.Kind.Parse(args); err != nil {
			return err
		}
		if own == nil {
			return nil
		}
		return own(args)
	}
	return h
}

// deadLog is a journal that cannot be opened.
type deadLog struct{ err error }

func (l deadLog) Append(...[]byte) error { return l.err }
func (l deadLog) Rewrite([][]byte) error { return l.err }
func (l deadLog) Size() int64            { return 0 }

// Run does commands until the context ends.
func (s *Service) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("dispatcher", s.d.Run)
	g.Go("arrivals", s.take)
	return errors.Join(g.Wait(stopGrace), s.Close())
}

// Close closes the journal of a service that does not run. Run does it at its end.
func (s *Service) Close() error {
	if s.journal == nil {
		return nil
	}
	return s.journal.Close()
}

// Kinds describes the commands of this board.
func (s *Service) Kinds() []command.Kind { return s.kinds }

// Names are the names of the commands of this board, sorted as Kinds.
func (s *Service) Names() []string {
	out := make([]string, len(s.kinds))
	for i := range s.kinds {
		out[i] = s.kinds[i].Name
	}
	return out
}

// Stats tells what was counted.
func (s *Service) Stats() Stats {
	return Stats{Dropped: s.dropped.Load(), Forged: s.forged.Load(), Told: s.told.Load()}
}

// Give takes an envelope from the fleet. It does not wait, and keeps the bytes. What finds
// no room is dropped and counted: the fleet gives it again.
func (s *Service) Give(envelope []byte) {
	select {
	case s.arrived <- envelope:
	default:
		s.dropped.Add(1)
	}
}

// take verifies what came, one after the other: an actor's order is kept.
func (s *Service) take(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-s.arrived:
			s.submit(ctx, e)
		}
	}
}

func (s *Service) submit(ctx context.Context, envelope []byte) {
	ctx, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	r, err := s.d.Submit(ctx, envelope)
	switch {
	case errors.Is(err, dispatch.ErrNotSigned):
		s.forged.Add(1)
		s.complain(err)
	case err != nil:
		s.complain(err) // nothing is known of it: it comes again
	case r.State == command.Refused && forgotten(r.Code):
		// The dispatcher does not remember it, so it tells nobody. Said once; if it is lost,
		// the fleet gives the command again and is answered again.
		if b, err := schema.Encode(&command.Report{V: schema.Version, Result: r}); err == nil {
			if up, _ := s.connection(); up != nil {
				_ = s.cfg.Send(ctx, r.ID.String(), b)
			}
		}
	}
}

// forgotten tells whether a refusal is nothing to remember: it would be the same again.
func forgotten(code string) bool {
	switch code {
	case command.CodeReplayed, command.CodeActors, command.CodeActor, command.CodeAddress:
		return true
	}
	return false
}

// complain writes to the log, now and then: strangers must not fill the disk with it.
func (s *Service) complain(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.complained.IsZero() || now.Sub(s.complained) >= complainEvery {
		s.complained = now
		s.cfg.Log.Warn("a command was not taken", "err", err, "not_signed", s.forged.Load(), "dropped", s.dropped.Load())
	}
}

// Options go with a command that is given on the board.
type Options struct {
	DryRun bool
	Reason string
	By     string // the person behind the actor, where that is another name
	// ID names the command; given twice it is one. Zero: a new one is made.
	ID command.ID
}

// Local gives a command of a person or a rule on the board, whom the caller knows: actor
// is local/USER or rule/NAME. Args are a CBOR map. The result says whether it is accepted;
// Wait tells how it ends.
func (s *Service) Local(ctx context.Context, actor, name string, args []byte, o Options) (command.Result, error) {
	kind, _, _ := strings.Cut(actor, "/")
	if kind != command.ActorLocal && kind != command.ActorRule {
		return command.Result{}, fmt.Errorf("command %s: actor %.70q, wants %s/USER or %s/NAME", name, actor, command.ActorLocal, command.ActorRule)
	}
	c := command.Command{
		V: schema.Version, Name: name, Args: args,
		Actor: actor, DryRun: o.DryRun, Reason: o.Reason, By: o.By,
	}
	if c.ID = o.ID; c.ID == (command.ID{}) {
		if _, err := rand.Read(c.ID[:]); err != nil {
			return command.Result{}, err
		}
	}
	return s.d.SubmitLocal(ctx, c)
}

// Challenge is what an operator's key signs next: it becomes the command's ID, so the same
// bytes are never good a second time, and no clock is needed.
func (s *Service) Challenge() (command.ID, error) {
	c := challenge{end: time.Now().Add(challengeLife)}
	if _, err := rand.Read(c.id[:]); err != nil {
		return c.id, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.challenges = append(s.challenges, c); len(s.challenges) > maxChallenges {
		s.challenges = s.challenges[1:]
	}
	return c.id, nil
}

// Operator takes a command that an operator's key signed over a challenge of this board.
// Its actor must be key/ and the first 16 digits of the key's id.
func (s *Service) Operator(ctx context.Context, envelope []byte) (command.Result, error) {
	payload, key, err := s.cfg.Operator(envelope)
	if err != nil {
		s.forged.Add(1)
		return command.Result{}, fmt.Errorf("%w: %w", dispatch.ErrNotSigned, err)
	}
	var c command.Command
	if err := schema.Decode(payload, &c); err != nil {
		return command.Result{}, err
	}
	refuse := func(code, form string, args ...any) (command.Result, error) {
		return command.Result{V: schema.Version, ID: c.ID, State: command.Refused, Time: s.cfg.Clock.Now(), Code: code, Text: fmt.Sprintf(form, args...)}, nil
	}
	if len(key) < 16 || c.Actor != command.ActorKey+"/"+key[:16] {
		return refuse(command.CodeActor, "it is of actor %s, and key %.16s signed it", c.Actor, key)
	}
	if tenant, board := s.cfg.Address(); c.Tenant != tenant || c.Board != board {
		return refuse(command.CodeAddress, "it is for board %s of %s, this is %s of %s", c.Board, c.Tenant, board, tenant)
	}
	if !s.redeem(c.ID) {
		return refuse(command.CodeReplayed, "its id is no challenge of this board, or one that is used or over a minute old: ask for a new one")
	}
	return s.d.SubmitLocal(ctx, c)
}

// redeem takes a challenge, once.
func (s *Service) redeem(id command.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.challenges {
		if c.id == id {
			s.challenges = append(s.challenges[:i:i], s.challenges[i+1:]...)
			return time.Now().Before(c.end)
		}
	}
	return false
}

// Cancel ends a command that waits or runs; by says who wants it.
func (s *Service) Cancel(ctx context.Context, id command.ID, by string) (command.Result, error) {
	return s.d.Cancel(ctx, id, by)
}

// Wait gives the result of a command once it is final.
func (s *Service) Wait(ctx context.Context, id command.ID) (command.Result, error) {
	return s.d.Wait(ctx, id)
}

// List gives the newest n commands that the board remembers, whoever gave them, with what
// was given; the newest are last.
func (s *Service) List(ctx context.Context, n int) ([]command.Report, error) {
	return s.d.List(ctx, n)
}
