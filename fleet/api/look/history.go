// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
)

const (
	// maxRange bounds the time one chart spans.
	maxRange = 31 * 24 * time.Hour
	// maxReads bounds the reads of the store for one page of detections of some boards:
	// one that looks for rare ones goes on with the next page.
	maxReads = 10
	// maxDetections bounds a page of detections.
	maxDetections = 200
)

// when reads a time given as ms since 1970 or RFC 3339.
func when(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms >= 0 && ms < 1<<43 {
		return time.UnixMilli(ms), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 || t.Year() > 2200 {
		return time.Time{}, door.Wrong(name, "takes milliseconds since 1970 or RFC 3339")
	}
	return t, nil
}

type seriesIn struct {
	Board  string   `path:"board" doc:"Its name"`
	Series []string `query:"series,explode" maxItems:"64" doc:"Which series; all where none is named"`
	From   string   `query:"from" maxLength:"40" doc:"Milliseconds since 1970 or RFC 3339"`
	To     string   `query:"to" maxLength:"40" doc:"As from; at most 31 days later"`
	Points int      `query:"points" minimum:"1" maximum:"5000" default:"1000" doc:"At most as many of each series; the store thins"`
}

type seriesOut struct {
	Body struct {
		Series []web.Series `json:"series"`
	}
}

func (l *Looks) series(ctx context.Context, by access.Caller, in *seriesIn) (*seriesOut, error) {
	if err := l.named(ctx, by, in.Board); err != nil {
		return nil, err
	}
	q := web.SeriesQuery{Tenant: by.Tenant, Board: in.Board, Series: in.Series, Points: in.Points}
	var err error
	if q.From, err = when("from", in.From); err != nil {
		return nil, err
	}
	if q.To, err = when("to", in.To); err != nil {
		return nil, err
	}
	for _, s := range q.Series {
		if schema.CheckName(s) != nil {
			return nil, door.Wrong("series", "names no series: lower case words with dots between them")
		}
	}
	if !q.From.IsZero() && !q.To.IsZero() && q.To.Sub(q.From) > maxRange {
		return nil, door.Wrong("to", "is over 31 days after from")
	}
	out := new(seriesOut)
	out.Body.Series, err = l.cfg.Source.Series(ctx, q)
	return out, err
}

type ledgerIn struct {
	Board string `path:"board" doc:"Its name"`
}

// ledgerReply is the loss ledger of one board: for each class made = arrived + lost
// + waiting, with the reasons of what was lost, and the newest gaps.
type ledgerReply struct {
	At       time.Time    `json:"at"`
	Board    string       `json:"board"`
	Online   bool         `json:"online"`
	State    web.State    `json:"state"`
	Since    time.Time    `json:"since"` // of the state
	LastSeen time.Time    `json:"last_seen"`
	Classes  []web.Ledger `json:"classes"`
	Gaps     []web.Gap    `json:"gaps"` // newest first, at most 50
}

type ledgerOut struct{ Body ledgerReply }

func (l *Looks) ledger(ctx context.Context, by access.Caller, in *ledgerIn) (*ledgerOut, error) {
	s, err := l.See(ctx, by, "")
	if err != nil {
		return nil, err
	}
	b, err := s.Board(in.Board)
	if err != nil {
		return nil, err
	}
	r := ledgerReply{s.At, b.Name, b.Online, b.State, b.Since, b.LastSeen, b.Ledger, b.Gaps}
	if r.Classes == nil {
		r.Classes = []web.Ledger{}
	}
	if r.Gaps == nil {
		r.Gaps = []web.Gap{}
	}
	return &ledgerOut{r}, nil
}

type detectionsIn struct {
	Q        string `query:"q" maxLength:"1024" doc:"Of which boards, as a query"`
	Board    string `query:"board" maxLength:"64" doc:"Of this board alone"`
	Camera   string `query:"camera" maxLength:"64" doc:"Of this camera alone"`
	Limit    int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"At most as many"`
	Before   string `query:"before" maxLength:"200" doc:"Go on after this id"`
	After    string `query:"after" maxLength:"200" doc:"The next newer ones than this id instead"`
	Pictures string `query:"pictures" enum:"0,1" doc:"1: only those with a picture"`
}

type detectionsOut struct {
	Body struct {
		Detections []web.Detection `json:"detections"`
		// Next is the id to go on with as before (or after); "" where there are no more.
		Next string `json:"next,omitempty"`
	}
}

func (l *Looks) detections(ctx context.Context, by access.Caller, in *detectionsIn) (*detectionsOut, error) {
	if in.Before != "" && in.After != "" {
		return nil, door.Wrong("before", "and after exclude each other")
	}
	q := web.DetectionQuery{
		Tenant: by.Tenant, Board: in.Board, Camera: in.Camera, Limit: in.Limit,
		Before: in.Before, After: in.After, PicturesOnly: in.Pictures == "1",
	}
	out := new(detectionsOut)
	out.Body.Detections = []web.Detection{}
	has, err := l.onlySeen(ctx, by, in.Q)
	if err != nil {
		return nil, err
	}
	if has != nil {
		q.Limit = maxDetections
	}
	for range maxReads {
		got, err := l.cfg.Source.Detections(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range got {
			if has != nil && !has(got[i].Board) {
				continue
			}
			if out.Body.Detections = append(out.Body.Detections, got[i]); len(out.Body.Detections) == in.Limit {
				out.Body.Next = got[i].ID
				return out, nil
			}
		}
		if len(got) < q.Limit {
			return out, nil // there are no more
		}
		last := got[len(got)-1].ID
		if q.After != "" {
			q.After = last
		} else {
			q.Before = last
		}
		out.Body.Next = last
	}
	return out, nil
}

// onlySeen gives a test for the boards that the caller sees and asked for; nil is all.
func (l *Looks) onlySeen(ctx context.Context, by access.Caller, q string) (func(board string) bool, error) {
	if by.Boards == "" && q == "" {
		return nil, nil
	}
	s, err := l.See(ctx, by, q)
	if err != nil {
		return nil, err
	}
	return func(board string) bool { _, err := s.Board(board); return err == nil }, nil
}

func (l *Looks) picture(w http.ResponseWriter, r *http.Request, by access.Caller) error {
	ctx, board := r.Context(), r.PathValue("board")
	if err := l.named(ctx, by, board); err != nil {
		return err
	}
	id := board + "/" + r.PathValue("class") + "/" + r.PathValue("epoch") + "/" + r.PathValue("seq")
	d, err := l.cfg.Source.Detections(ctx, web.DetectionQuery{Tenant: by.Tenant, ID: id, Limit: 1})
	if err != nil {
		return err
	}
	if len(d) == 0 || !d[0].HasPicture || d[0].Board != board {
		return web.ErrNotFound
	}
	f, err := l.cfg.Source.Picture(ctx, by.Tenant, d[0].Board, d[0].Event.Snapshot)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	// The type is found here, never taken from the board: a picture is a picture.
	head := make([]byte, 512)
	n, _ := io.ReadFull(f, head)
	kind := http.DetectContentType(head[:n])
	if kind != "image/jpeg" && kind != "image/png" {
		kind = "application/octet-stream"
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	r = r.Clone(r.Context())
	r.Header.Del("If-Match") // a picture has no ETag, and 412 would come as a picture
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

type checkOut struct {
	Body struct {
		Boards []store.Check `json:"boards"`
	}
}

func (l *Looks) check(ctx context.Context, by access.Caller, _ *struct{}) (*checkOut, error) {
	out := new(checkOut)
	var err error
	out.Body.Boards, err = l.cfg.Check(ctx, by.Tenant)
	return out, err
}
