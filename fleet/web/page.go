// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"html/template"
	"net/url"
	"strings"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/overlay"
	"fulmar/fleet/web/words"
)

// page is one view at one moment: what the template writes and the stream sends.
type page struct {
	Name    string // of its template
	Title   string
	View    string // path and query, without parts
	Tab     string
	Theme   string
	User    string
	Release string
	Factors bool // there is a page of the second factor
	Data    any

	*live.Sheet
	only map[string]bool // the parts asked for; nil: all
}

// Zone names the time zone of the page.
func (p *page) Zone() string { return p.At.Format("MST") }

// Clock is the page's moment.
func (p *page) Clock() string { return p.At.Format("15:04:05") }

// Ms is the page's moment in ms since 1970.
func (p *page) Ms() int64 { return p.At.UnixMilli() }

// Want tells whether a part is to be rendered.
func (p *page) Want(part string) bool { return p.only == nil || p.only[part] }

// Stamp writes a moment in the page's zone.
func (p *page) Stamp(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return words.Stamp(t.In(p.At.Location()), p.At)
}

// For writes how long something has been so.
func (p *page) For(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return words.Span(p.At.Sub(t))
}

// reading sets the live text of a reading, nil for one that is not sent.
func (p *page) reading(key string, r *Reading, u words.Unit) template.HTML {
	if r == nil {
		return p.Absent(key)
	}
	return p.Reading(key, r.Value, r.Quality, r.At, u)
}

// shot is a detection ready to be shown.
type shot struct {
	Detection
	overlay.Drawing
	Src   string // of the picture, "" where there is none
	Link  string
	Eager bool
}

// newShot prepares a detection.
func newShot(d Detection) shot {
	s := shot{Detection: d, Drawing: overlay.Draw(&d.Event)}
	levels := strings.Split(d.ID, "/")
	for i := range levels {
		levels[i] = url.PathEscape(levels[i])
	}
	s.Link = "/detections/" + strings.Join(levels, "/")
	if d.HasPicture && d.Event.Snapshot != "" {
		s.Src = "/pictures/" + url.PathEscape(d.Board) + "/" + url.PathEscape(d.Event.Snapshot)
	}
	return s
}
