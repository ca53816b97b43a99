// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"fulmar/fleet/web/ledger"
	"fulmar/fleet/web/trust"
	"fulmar/fleet/web/verdict"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// ErrNotFound is returned by a [Source] for a board, detection or picture that is
// not there.
var ErrNotFound = errors.New("not found")

// Source is where the page reads. All numbers of one Overview come from one read,
// so that headline, chips, tiles and rows always agree.
type Source interface {
	Overview(ctx context.Context, tenant string) (*Overview, error)
	Series(ctx context.Context, q SeriesQuery) ([]Series, error)
	Detections(ctx context.Context, q DetectionQuery) ([]Detection, error)
	Picture(ctx context.Context, tenant, board, blob string) (io.ReadSeekCloser, error)
}

// Overview is the fleet at one moment.
type Overview struct {
	At     time.Time `json:"at"`
	Boards []Board   `json:"boards"` // by name
}

// State is a board's one state word.
type State = verdict.State

// The states, worst first.
const (
	StateFailing     = verdict.Failing
	StateUnreachable = verdict.Unreachable
	StateDegraded    = verdict.Degraded
	StateNeverHeard  = verdict.NeverHeard
	StateHealthy     = verdict.Healthy
)

// Board is one board as the fleet knows it.
type Board struct {
	Name     string            `json:"name"`
	State    State             `json:"state"`
	Cause    string            `json:"cause"`     // primary cause in words; "" when healthy
	Since    time.Time         `json:"since"`     // of the state
	LastSeen time.Time         `json:"last_seen"` // last stored message; zero: never
	Online   bool              `json:"online"`
	Release  string            `json:"release"`
	KeyMode  string            `json:"key_mode"`        // "software" or "tpm"
	Trust    *Trust            `json:"trust,omitempty"` // nil for boards of a foreign broker
	Meta     rest.Meta         `json:"meta"`            // what people say of it
	Facts    map[string]string `json:"facts"`
	Latest   []Reading         `json:"latest"`  // newest value of each series, by name
	Reports  []Report          `json:"reports"` // newest of each subject
	Cameras  []Camera          `json:"cameras"`
	Ledger   []Ledger          `json:"ledger"` // per class
	Gaps     []Gap             `json:"gaps"`   // newest first, at most 50
}

// Board finds a board by its name; nil where there is none. Boards are by name.
func (ov *Overview) Board(name string) *Board {
	i, ok := slices.BinarySearchFunc(ov.Boards, name, func(b Board, name string) int { return cmp.Compare(b.Name, name) })
	if !ok {
		return nil
	}
	return &ov.Boards[i]
}

// Reading gives the newest reading of a series, nil where there is none.
func (b *Board) Reading(series string) *Reading {
	if i := slices.IndexFunc(b.Latest, func(r Reading) bool { return r.Series == series }); i >= 0 {
		return &b.Latest[i]
	}
	return nil
}

// Reading is the newest value of a series.
type Reading struct {
	Series  string         `json:"series"`
	Value   float64        `json:"value"`
	Quality schema.Quality `json:"quality"`
	At      time.Time      `json:"at"`
}

// Report is the newest word of a board on a subject.
type Report struct {
	Subject  string          `json:"subject"`
	State    string          `json:"state"`
	Severity schema.Severity `json:"severity"`
	Text     string          `json:"text"`
	At       time.Time       `json:"at"`
}

// Bad tells whether a report is more than information.
func (r Report) Bad() string {
	switch r.Severity {
	case schema.SeverityAlarm:
		return "failing"
	case schema.SeverityWarn:
		return "degraded"
	}
	return "healthy"
}

// Camera sums up a camera's events of the last hour.
type Camera struct {
	Name   string    `json:"name"`
	Model  string    `json:"model"`
	Engine string    `json:"engine"`
	Last   time.Time `json:"last"`   // newest event
	Events uint64    `json:"events"` // in the last hour
	Boxes  uint64    `json:"boxes"`
	// Known is set where ground truth is known; then True, False and Missed count
	// boxes of the last hour: precision True/(True+False), recall True/(True+Missed).
	Known  bool   `json:"known"`
	True   uint64 `json:"true"`
	False  uint64 `json:"false"`
	Missed uint64 `json:"missed"`
}

// Ledger is the book of one class, Gap one loss with its reason.
type (
	Ledger = ledger.Class
	Gap    = ledger.Gap
)

// Book is what a board's ledger is written from.
func (b *Board) Book() *ledger.Board {
	x := &ledger.Board{Name: b.Name, Classes: b.Ledger, Gaps: b.Gaps, Online: b.Online && b.State != StateUnreachable}
	if !x.Online {
		x.Since = b.Since
	}
	return x
}

// Trust is how the fleet knows the board; Keeper decides who belongs to the fleet.
type (
	Trust  = trust.Trust
	Keeper = trust.Keeper
)

// SeriesQuery asks for the history of series of one board.
type SeriesQuery struct {
	Tenant, Board string
	Series        []string // empty: all
	From, To      time.Time
	Points        int // at most this many per series; the source thins
}

// Series is one line of a chart. T is ms since 1970; V is NaN-free: a hole is an
// absent point. Where a point stands for several readings V is their mean, and Lo
// and Hi are the lowest and highest of them; both are nil where every point is one
// reading.
type Series struct {
	Name string    `json:"name"`
	T    []int64   `json:"t"`
	V    []float64 `json:"v"`
	Lo   []float64 `json:"lo,omitempty"`
	Hi   []float64 `json:"hi,omitempty"`
}

// DetectionQuery asks for detections, newest first.
type DetectionQuery struct {
	Tenant string
	Board  string // "" all
	Camera string // "" all
	Before string // Detection.ID to continue after; "" from the newest
	// After turns the direction round: the next newer ones than this Detection.ID,
	// the nearest first. Never set together with Before.
	After string
	// ID asks for this one detection alone; the other fields but Tenant are ignored.
	ID    string
	Limit int // at most 200
	// Boards are the boards to look at; nil is all. Board narrows further.
	Boards []string
	// From and To bound the capture, From inclusive and To exclusive; zero is no bound.
	From, To time.Time
	// PicturesOnly leaves out events without a picture.
	PicturesOnly bool
}

// MaxCounted bounds how many detections are counted for one picture of hours: enough
// for a busy site's day, and read in well under a second.
const MaxCounted = 100_000

// Hour is how many detections were captured in the hour that begins at At.
type Hour struct {
	At    time.Time
	Count uint64
}

// Detection is one event of a camera.
type Detection struct {
	ID         string       `json:"id"` // board/class/epoch/seq
	Board      string       `json:"board"`
	At         time.Time    `json:"at"`       // capture, on the fleet's clock
	Timed      string       `json:"timed"`    // how well At is known: "exact", "estimated" or "unknown"
	Arrived    time.Time    `json:"arrived"`  // stored at the fleet
	Replayed   bool         `json:"replayed"` // came late, after an outage
	Event      schema.Event `json:"event"`
	HasPicture bool         `json:"has_picture"` // the picture is here, whole
}
