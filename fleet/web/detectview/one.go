// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package detectview

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"fulmar/fleet/web"
	"fulmar/fleet/web/words"
)

// readTimeout bounds one read of the source for a picture.
const readTimeout = 10 * time.Second

// oneView is one detection.
type oneView struct {
	web.Shot
	Older, Newer, Wall string
	Why                []words.Fact
}

func (h *views) one(ctx context.Context, p *web.Shown) error {
	id, tenant := p.Value("id"), p.Session.Tenant
	ds, err := h.cfg.Source.Detections(ctx, web.DetectionQuery{Tenant: tenant, ID: id, Limit: 1})
	if err != nil {
		return err
	}
	if len(ds) != 1 || ds[0].ID != id {
		return web.ErrNotFound
	}
	f, wrong := read(p.Query, p.At.Location())
	if wrong != "" {
		f = filter{keep: url.Values{}} // neighbours among all
	}
	v := &oneView{Shot: web.NewShot(ds[0]), Wall: "/detections"}
	v.Eager = true
	p.Title, p.Data = v.Board+" "+v.Event.Source, v
	v.Why = why(p, &v.Shot)
	suffix := ""
	if len(f.keep) > 0 {
		suffix = "?" + f.keep.Encode()
		v.Wall += suffix
	}
	ov, err := h.cfg.Source.Overview(ctx, tenant)
	if err != nil {
		return err
	}
	dq, none := f.ask(tenant, ov)
	if none {
		return nil
	}
	for _, next := range []struct {
		before, after string
		link          *string
	}{{before: id, link: &v.Older}, {after: id, link: &v.Newer}} {
		dq.Before, dq.After = next.before, next.after
		found, _, _, err := h.find(ctx, &f, dq, 1)
		if err != nil {
			return err
		}
		if len(found) > 0 && found[0].ID != id {
			*next.link = web.NewShot(found[0]).Link + suffix
		}
	}
	return nil
}

// why says where a detection comes from: what saw it, how sure it was, how fast, and how
// well its time is known.
func why(p *web.Shown, s *web.Shot) []words.Fact {
	e := &s.Event
	var out []words.Fact
	add := func(name, text string) {
		if text != "" {
			out = append(out, words.Fact{Name: name, Text: text})
		}
	}
	add("Model", e.Model)
	add("Engine", e.Engine)
	if len(e.Boxes) > 0 {
		low, high := e.Boxes[0].Score, e.Boxes[0].Score
		for _, b := range e.Boxes {
			low, high = min(low, b.Score), max(high, b.Score)
		}
		sure := words.Score(low)
		if words.Score(high) != sure {
			sure += " to " + words.Score(high)
		}
		add("How sure", sure+", what the model gave; below its threshold nothing is sent")
	} else {
		add("How sure", "the model found nothing; the frame was sent all the same")
	}
	if us := e.LatencyUs; us > 0 {
		add("Speed", words.Number(float64(us)/1000, 1)+"\u00a0ms from capture to detections")
	}
	add("Frame", words.Count(e.Frame)+", "+words.Count(uint64(max(e.Width, 0)))+" × "+words.Count(uint64(max(e.Height, 0)))+" px")
	add("Captured", p.Stamp(s.At))
	switch s.Timed {
	case "estimated":
		add("Time", "by the board's own clock, which was right then")
	case "unknown":
		add("Time", "uncertain: the board's clock was not to be trusted and it was not connected")
	}
	stored := p.Stamp(s.Arrived)
	if s.Replayed {
		stored += ", " + words.Span(s.Arrived.Sub(s.At)) + " after capture, once the link was back"
	}
	add("Stored", stored)
	add("Record", s.ID)
	return out
}

// picture serves a stored JPEG as it is. A blob never changes, so the browser may
// keep it; only this browser, for it is behind the log-in.
func (h *views) picture(w http.ResponseWriter, r *http.Request, s web.Session) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	f, err := h.cfg.Source.Picture(ctx, s.Tenant, r.PathValue("board"), r.PathValue("blob"))
	if errors.Is(err, web.ErrNotFound) {
		http.Error(w, "this picture is not here", http.StatusNotFound)
		return nil
	}
	if err != nil {
		return err
	}
	defer closeQuietly(f)
	head := w.Header()
	head.Set("Content-Type", "image/jpeg")
	head.Set("Cache-Control", "private, max-age=31536000, immutable")
	head.Set("ETag", `"`+url.PathEscape(r.PathValue("blob"))+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

// closeQuietly closes what was only read.
func closeQuietly(c io.Closer) { _ = c.Close() }
