// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package look is the one look at a fleet: all its boards with their states, causes and
// newest values, as one snapshot that everybody shares and nobody may change.
//
// A snapshot is made when somebody asks and the last one is older than a second. What has
// not changed since is not read again: the ledger's writer tells whose data has (package
// live), and of those only what can have changed is read, in one read transaction. States
// are judged anew each time, as some change by time alone: a board that is silent sends
// nothing that could tell so.
//
// Where no writer tells (another process writes), all is read whenever the database says
// that it has changed.
package look

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/fleet/store/live"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

const (
	// Every is how old a snapshot may be: the page's own beat.
	Every = time.Second
	// allAfter is when everything is read again though nothing asked for it: should a
	// writer ever fail to tell of a change, it shows after this.
	allAfter = 10 * time.Minute
	// readTimeout bounds one refresh; 10,000 boards take 0.6 s when all is read.
	readTimeout = 20 * time.Second
	// maxTenants bounds the tenants looked at; beyond it the looks begin anew.
	maxTenants = 1000
)

// Enrolled is a board as the registry knows it.
type Enrolled struct {
	Name    string
	KeyMode string
	Facts   map[string]string // told at enrolment; newer ones come with each hello
	At      time.Time
	Revoked bool
	Trust   *web.Trust // how it proves who it is; nil: nothing is known
	Meta    rest.Meta  // what people say of it
}

// Config says where a look looks.
type Config struct {
	Read *sql.DB      // connections that only read
	Live *live.Boards // what the writer tells
	// Version gives a number that changes with each commit of others.
	Version func(ctx context.Context) (int64, error)
	// Enrolled lists the boards of a tenant. Nobody changes the list afterwards.
	Enrolled func(ctx context.Context, tenant string) ([]Enrolled, error)
	Now      func() time.Time // nil: time.Now
}

// Look gives snapshots.
type Look struct {
	cfg   Config
	every atomic.Int64 // Every; less in tests

	mu      sync.Mutex
	tenants map[string]*tenant
}

// New makes a look.
func New(cfg Config) *Look {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	l := &Look{cfg: cfg, tenants: map[string]*tenant{}}
	l.every.Store(int64(Every))
	return l
}

// SetEvery sets how old a snapshot may be, for tests that cannot wait for [Every].
func (l *Look) SetEvery(d time.Duration) { l.every.Store(int64(d)) }

// tenant is what is remembered of one tenant's boards; all but now belong to who holds mu.
type tenant struct {
	name string
	now  atomic.Pointer[web.Overview]
	// stale asks for a new snapshot whatever the age of the last.
	stale atomic.Bool

	mu      sync.Mutex
	rows    map[string]*row // nil: nothing was read yet
	ids     map[int64]*row
	mark    live.Mark // of what was told
	version int64     // of the database at the last reading of all
	all     time.Time // when all was read
	event   int64     // the last row of table event that is counted; below 0 none is
	back    int64     // those up to it are not counted yet; 0 when the hour is whole
	judged  uint64    // number of snapshots made
}

// Overview gives the newest snapshot, at most [Every] old. It is shared: whoever gets it
// must not change anything in it.
func (l *Look) Overview(ctx context.Context, name string) (*web.Overview, error) {
	t := l.tenant(name)
	if o := l.fresh(t); o != nil {
		return o, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if o := l.fresh(t); o != nil {
		return o, nil // somebody else made it meanwhile
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Others wait for it too, so it does not end with who asked first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	t.stale.Store(false) // what is said from here on is for the next one
	o, err := l.refresh(ctx, t)
	if err != nil {
		t.rows = nil // half of it may be new
		return nil, err
	}
	t.now.Store(o)
	return o, nil
}

// Stale has the next Overview of a tenant made anew, whatever the age of the last: for who
// has just changed something and looks whether it is there.
func (l *Look) Stale(name string) { l.tenant(name).stale.Store(true) }

func (l *Look) fresh(t *tenant) *web.Overview {
	if o := t.now.Load(); o != nil && !t.stale.Load() && l.cfg.Now().Sub(o.At) < time.Duration(l.every.Load()) {
		return o
	}
	return nil
}

func (l *Look) tenant(name string) *tenant {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tenants[name]
	if t == nil {
		if len(l.tenants) >= maxTenants {
			clear(l.tenants)
		}
		t = &tenant{name: name}
		l.tenants[name] = t
	}
	return t
}

// Find gives a board of a snapshot; nil where there is none of that name.
func Find(o *web.Overview, board string) *web.Board {
	i, ok := slices.BinarySearchFunc(o.Boards, board, func(b web.Board, name string) int { return strings.Compare(b.Name, name) })
	if !ok {
		return nil
	}
	return &o.Boards[i]
}

// refresh brings the tenant's rows up to date and makes a snapshot of them.
func (l *Look) refresh(ctx context.Context, t *tenant) (*web.Overview, error) {
	known, err := l.cfg.Enrolled(ctx, t.name)
	if err != nil {
		return nil, err
	}
	// In this order: what is committed after these two is read once more the next time.
	version, err := l.cfg.Version(ctx)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	told, mark := l.cfg.Live.Since(t.name, t.mark)
	tx, err := l.cfg.Read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // only read
	v := &view{tx: tx, t: t, now: l.cfg.Now()}
	if t.rows == nil || mark.Wiped != t.mark.Wiped || !mark.Writer && version != t.version || v.now.Sub(t.all) >= allAfter {
		told, _ = l.cfg.Live.Since(t.name, live.Mark{}) // values that are not written yet; what is after mark comes again
		err = v.readAll(ctx, mark.Wiped != t.mark.Wiped)
		t.version, t.all = version, v.now
	} else {
		err = v.readSome(ctx, told)
	}
	if err = errors.Join(err, v.countEvents(ctx)); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	t.mark = mark
	v.overlay(told)
	return t.snapshot(v.now, known), nil
}

// overlay puts the values that were told over those of the database, which are older.
func (v *view) overlay(told []live.Told) {
	for i := range told {
		if r := v.t.rows[told[i].Name]; r != nil && !told[i].Gone {
			r.take(&told[i].Values)
		}
	}
}

// take takes the newest values.
func (r *row) take(v *live.Values) {
	r.LastSeen, r.period = When(v.LastSeen), v.Period
	if r.Latest = nil; len(v.Names) > 0 {
		r.Latest = make([]web.Reading, 0, len(v.Names))
	}
	for i, name := range v.Names {
		x := &v.Readings[i]
		r.Latest = append(r.Latest, web.Reading{Series: name, Value: x.Value, Quality: x.Quality, At: When(x.At)})
	}
}

// snapshot judges all boards and lists them by name.
func (t *tenant) snapshot(now time.Time, known []Enrolled) *web.Overview {
	t.judged++
	out := &web.Overview{At: now, Boards: make([]web.Board, 0, max(len(known), len(t.rows)))}
	add := func(r *row, e *Enrolled) {
		r.listed = t.judged
		b := r.Board // what it holds is shared and never changed
		if r.hours != nil {
			b.Cameras = r.lastHour(now)
		}
		b.KeyMode, b.Trust, b.Meta = e.KeyMode, e.Trust, e.Meta
		if len(b.Facts) == 0 && e.Facts != nil {
			b.Facts = e.Facts
		}
		b.State, b.Cause, b.Since = r.verdict(now, e)
		out.Boards = append(out.Boards, b)
	}
	for i := range known {
		r := t.rows[known[i].Name]
		if r == nil { // enrolled, never heard
			r = &row{Board: web.Board{Name: known[i].Name}}
		}
		add(r, &known[i])
	}
	// Boards of a foreign broker are heard of without being enrolled.
	for _, r := range t.rows {
		if r.listed != t.judged {
			add(r, &Enrolled{})
		}
	}
	byName := func(a, b web.Board) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(out.Boards, byName) {
		slices.SortFunc(out.Boards, byName)
	}
	return out
}

// When turns ms since 1970 into a time; 0 is the zero time.
func When(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
