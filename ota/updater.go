// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"fulmar/internal/disk"
	"fulmar/ota/record"
	"fulmar/ota/release"
	"fulmar/schema"
	words "fulmar/schema/ota"
)

// Config is how an [Updater] works. Zero fields get the values named.
type Config struct {
	// Dir holds the record, manifests and what is being brought; it is made. The folder above
	// has to be there.
	Dir   string
	Clock schema.Clock // schema.BootClock, so that a suspend counts
	// Total is the deadline of an order that has none of its own: 7 days.
	Total time.Duration
	// Poll is how often it asks whether what blocks an update has passed: 30 s.
	Poll time.Duration
	// Look is how often the gate is asked in a trial: 5 s.
	Look time.Duration
	// Tick is how often an update that waits writes down how long it has waited: 5 min. So much
	// at most is counted twice when the power fails.
	Tick time.Duration
}

// Deps are what an [Updater] works with. All but Free, Disk and Log have to be there.
type Deps struct {
	// Installer gives the installer of a component, nil where the board has none for it. It is
	// asked again each time, and gives the same one.
	Installer func(component string) Installer
	Fetch     Fetcher
	// Apply makes the file want at outPath, which does not exist yet, of a patch and its base.
	Apply func(ctx context.Context, codec, basePath, patchPath, outPath string, want release.Object) error
	Gate  Gate
	Floor Floor
	// Unmet tells in words what of a component's needs the board does not have.
	Unmet func(c *release.Component) []string
	// Conditions tells what speaks against going on now: hours, power, heat, running work.
	Conditions func(component string, m Moment) []Refusal
	// Tell hands a word to the fleet and returns when it is durable. It must not block.
	Tell func(words.State) error
	// Warn tells the fleet what is no word on an update: that the record was lost.
	Warn func(reason, text string)

	Free func() (int64, error) // bytes where Dir is
	Disk disk.Disk
	Log  *slog.Logger
}

// Bounds of the updater itself.
const (
	maxOffers  = 16 // orders between two steps; the fleet sends again what is refused
	maxBoots   = 32 // of the machine during one update
	maxFailed  = 2  // failures of the same manifest under the same attempt
	patience   = 10 * time.Second
	stopGrace  = 10 * time.Second
	sweepLimit = 5 * time.Minute
)

// Errors of an offer.
var (
	ErrOrder = errors.New("an order that makes no sense")
	ErrOld   = errors.New("a newer order is known for this component")
	ErrFull  = errors.New("too many orders wait: it has to be offered again later")
	// ErrLoop: the same manifest failed twice; a new attempt number tries it again.
	ErrLoop = errors.New("the same release failed twice here")
	// ErrNothing: there is nothing that could be aborted.
	ErrNothing = errors.New("no such update is in work or waits, or it cannot be stopped any more")
)

// Updater brings updates into force, one at a time.
type Updater struct {
	cfg     Config
	deps    Deps
	offers  chan Order
	aborts  chan abort
	restart chan Restart
	rec     atomic.Pointer[record.Record] // the newest that is durable; never changed
	view    atomic.Pointer[Status]
}

type abort struct {
	component string
	done      chan error
}

// New makes an updater. It touches nothing before [Updater.Run].
func New(cfg Config, deps Deps) *Updater {
	cfg.Total = cmp.Or(cfg.Total, 7*24*time.Hour)
	cfg.Poll = cmp.Or(cfg.Poll, 30*time.Second)
	cfg.Look = cmp.Or(cfg.Look, 5*time.Second)
	cfg.Tick = cmp.Or(cfg.Tick, 5*time.Minute)
	if deps.Disk == nil {
		deps.Disk = disk.OS{}
	}
	if deps.Free == nil {
		deps.Free = func() (int64, error) {
			free, _, _, err := disk.Free(cfg.Dir)
			return free, err
		}
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	u := &Updater{cfg: cfg, deps: deps, offers: make(chan Order, maxOffers), aborts: make(chan abort), restart: make(chan Restart, 1)}
	u.view.Store(&Status{})
	return u
}

// Offer hands an order over; it never waits. What it gives back is no word on the update:
// nil says that the order has been taken in, or is known and its newest word told again.
func (u *Updater) Offer(o Order) error {
	if err := o.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrOrder, err)
	}
	if r := u.rec.Load(); r != nil {
		if err := admits(r, &o, o.Attempt == 0); err != nil {
			return err
		}
	}
	select {
	case u.offers <- o:
		return nil
	default:
		return ErrFull
	}
}

// admits tells whether an order may come after what is known.
func admits(r *record.Record, o *Order, unnumbered bool) error {
	mem := r.Components[o.Component]
	if !unnumbered {
		newest := uint64(0)
		if mem != nil {
			newest = mem.Attempt
		}
		for i := range r.Queue {
			if r.Queue[i].Component == o.Component {
				newest = max(newest, r.Queue[i].Attempt)
			}
		}
		if o.Attempt < newest {
			return fmt.Errorf("%w: attempt %d after %d of %s", ErrOld, o.Attempt, newest, o.Component)
		}
		return nil
	}
	if mem != nil && mem.FailedHash == o.Hash && mem.Failed >= maxFailed && o.Act != release.ActUndo {
		return fmt.Errorf("%w: %s of %s: %s", ErrLoop, o.Release, o.Component, mem.Reason)
	}
	return nil
}

// Abort ends the update of a component, or whichever there is for "": at once before it is
// in force, and by going back on trial. It waits for the step that is being done. [ErrNothing].
func (u *Updater) Abort(ctx context.Context, component string) error {
	a := abort{component, make(chan error, 1)}
	select {
	case u.aborts <- a:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Restarting gives what has to start again, when it has to. The record has it: what is not
// heard here, or not done, is asked again after the next start.
func (u *Updater) Restarting() <-chan Restart { return u.restart }

// Attempts gives the highest attempt that was begun for a component. known is false where
// that is not sure: before Run has read the record, and after it was lost; then only an
// order that was proven to be the newest may be offered.
func (u *Updater) Attempts(component string) (attempt uint64, known bool) {
	r := u.rec.Load()
	if r == nil {
		return 0, false
	}
	if mem := r.Components[component]; mem != nil {
		return mem.Attempt, true
	}
	return 0, !r.Unsure
}

// History gives the updates that are over, the newest last.
func (u *Updater) History() ([]record.Past, error) { return record.History(u.cfg.Dir) }

// Status is what people are told.
type Status struct {
	Trouble string // why it does not work at all, "" where it does
	Lost    bool   // the record was damaged and begun anew
	Work    *Job
	Waiting []Job
	// Components are what is known of each one.
	Components map[string]*record.Component
}

// Job is an update in work, or one that waits.
type Job struct {
	Rollout, Component, Release, Act string
	Attempt                          uint64
	State                            string // a word of schema/ota
	Reason                           string
	Progress                         int // per cent of what has to be fetched
	Since                            time.Duration
	// Ends is when the state is over at the latest, from now.
	Ends time.Duration
}

// Status tells where it stands, as of its newest step.
func (u *Updater) Status() Status {
	s := *u.view.Load()
	if r := u.rec.Load(); r != nil {
		s.Components, s.Lost = r.Components, r.Lost
	}
	return s
}
