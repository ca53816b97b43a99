// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/overlay"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// Shown is one view at one moment: what the template writes and the stream sends.
type Shown struct {
	Name    string // of its view
	Title   string
	View    string // path and query, without parts
	Tab     string // the word of the bar that it stands under; "" has no bar
	Tabs    []Tab
	Theme   string
	User    string
	Release string
	Factors bool // there is a page of the second factor
	Data    any
	Code    int // of the answer; 0 is the usual one
	Session Session
	Query   url.Values // of the address, without parts

	*live.Sheet
	only   map[string]bool // the parts asked for; nil: all
	values map[string]string
	assets []string
	// noSecret: it may be compressed, see squeezed
	noSecret bool
}

// Value gives a value in the page's path, as [http.Request.PathValue] does.
func (p *Shown) Value(name string) string { return p.values[name] }

// May tells whether the person has a right.
func (p *Shown) May(right rest.Right) bool { return p.Session.Caller().May(right) == nil }

// Moment sets the moment that the page is of: all its ages count from there.
func (p *Shown) Moment(t time.Time) { p.At = t.In(p.At.Location()) }

// Files are the page's own assets that end in ext.
func (p *Shown) Files(ext string) (out []string) {
	for _, a := range p.assets {
		if strings.HasSuffix(a, ext) {
			out = append(out, a)
		}
	}
	return out
}

// Zone names the time zone of the page.
func (p *Shown) Zone() string { return p.At.Format("MST") }

// Clock is the page's moment.
func (p *Shown) Clock() string { return p.At.Format("15:04:05") }

// Ms is the page's moment in ms since 1970.
func (p *Shown) Ms() int64 { return p.At.UnixMilli() }

// Want tells whether a part is to be rendered.
func (p *Shown) Want(part string) bool { return p.only == nil || p.only[part] }

// Stamp writes a moment in the page's zone.
func (p *Shown) Stamp(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return words.Stamp(t.In(p.At.Location()), p.At)
}

// For writes how long something has been so.
func (p *Shown) For(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return words.Span(p.At.Sub(t))
}

// Sent sets the live text of a reading, nil for one that is not sent.
func (p *Shown) Sent(key string, r *Reading, u words.Unit) template.HTML {
	if r == nil {
		return p.Absent(key)
	}
	return p.Reading(key, r.Value, r.Quality, r.At, u)
}

// Shot is a detection ready to be shown.
type Shot struct {
	Detection
	overlay.Drawing
	Src   string // of the picture, "" where there is none
	Link  string
	Eager bool
}

// NewShot prepares a detection.
func NewShot(d Detection) Shot {
	s := Shot{Detection: d, Drawing: overlay.Draw(&d.Event)}
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

// Shots reads detections and prepares them.
func Shots(ctx context.Context, src Source, q DetectionQuery) ([]Shot, error) {
	ds, err := src.Detections(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]Shot, len(ds))
	for i := range ds {
		out[i] = NewShot(ds[i])
	}
	return out, nil
}

// ShotIDs is the shape of a list of shots.
func ShotIDs(ss []Shot) []string {
	out := make([]string, len(ss))
	for i := range ss {
		out[i] = ss[i].ID + strconv.FormatBool(ss[i].HasPicture)
	}
	return out
}
