// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

// perPage is how many entries one page has: two screens.
const perPage = 50

// Log is what the page needs of the audit log.
type Log interface {
	// Entries gives at most limit entries of a tenant after one, 0 from the first.
	Entries(ctx context.Context, tenant string, after int64, limit int, f rest.AuditFilter) ([]rest.AuditEntry, error)
	Head(ctx context.Context) (rest.AuditHead, error)
}

// view is the audit log, one page of it.
type view struct {
	Headline, Tone string
	Broken         string // where the chain does not hold
	Checked        string
	Head           rest.AuditHead
	Form           *form.Form
	Filtered       bool
	Rows           []entry
	Older, Newest  string // links
	Command        string
}

// entry is one row, ready to be shown.
type entry struct {
	rest.AuditEntry
	When string
}

// filter reads the address; what is wrong stands in the form.
func filter(f *form.Form, zone *time.Location) rest.AuditFilter {
	out := rest.AuditFilter{Who: f.Line("who", 128), What: f.Line("what", 128), Board: f.Line("board", 128), Newest: true}
	day := func(name string) time.Time {
		s := f.Line(name, 10)
		if s == "" {
			return time.Time{}
		}
		t, err := time.ParseInLocation(time.DateOnly, s, zone)
		if err != nil {
			f.Wrong(name, "A day, as 2026-11-26.")
		}
		return t
	}
	out.From, out.To = day("from"), day("to")
	if !out.To.IsZero() {
		out.To = out.To.AddDate(0, 0, 1) // the whole of that day
	}
	return out
}

// build makes the view of an address. Only is false where no row is wanted.
func build(ctx context.Context, s *live.Sheet, l Log, tenant string, q url.Values, rows bool) (*view, error) {
	v := &view{Form: form.New()}
	for _, n := range []string{"who", "what", "board", "from", "to"} {
		if q.Get(n) != "" {
			v.Form.Set(n, q.Get(n))
			v.Filtered = true
		}
	}
	flt := filter(v.Form, s.At.Location())
	var err error
	if v.Head, err = l.Head(ctx); err != nil {
		return nil, err
	}
	v.head(s)
	if !rows {
		return v, nil
	}
	after, _ := strconv.ParseInt(q.Get("after"), 10, 64)
	if v.Form.OK() {
		list, err := l.Entries(ctx, tenant, max(after, 0), perPage+1, flt)
		if err != nil {
			return nil, err
		}
		link := func(after int64) string {
			u := url.Values{}
			for _, n := range []string{"who", "what", "board", "from", "to"} {
				if x := q.Get(n); x != "" {
					u.Set(n, x)
				}
			}
			if after > 0 {
				u.Set("after", strconv.FormatInt(after, 10))
			}
			if len(u) == 0 {
				return "/audit"
			}
			return "/audit?" + u.Encode()
		}
		if after > 0 {
			v.Newest = link(0)
		}
		if len(list) > perPage {
			list = list[:perPage]
			v.Older = link(list[perPage-1].Seq)
		}
		for _, e := range list {
			v.Rows = append(v.Rows, entry{e, words.Stamp(e.At.In(s.At.Location()), s.At)})
		}
	}
	return v, nil
}

// head writes the headline from the head of the log.
func (v *view) head(s *live.Sheet) {
	h := &v.Head
	at := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return words.Age(s.At.Sub(t))
	}
	day := h.Since.In(s.At.Location()).Format("2 Jan")
	if h.Since.Year() != s.At.Year() {
		day = h.Since.In(s.At.Location()).Format("2 Jan 2006")
	}
	entries := words.Plural(int(h.Rows), "entry", "entries")
	switch {
	case h.Broken != "":
		v.Headline, v.Tone, v.Broken = "The chain is broken", "failing", stop(words.Sentence(h.Broken))
	case h.Rows == 0:
		v.Headline, v.Tone = "Nothing has been written yet", "never"
	case h.Checked.IsZero():
		v.Headline, v.Tone = entries+" since "+day+"; the chain has not been gone through yet", "never"
	case h.Signature == "":
		v.Headline, v.Tone = "Unbroken since "+day+"; "+entries+"; the head is not signed", "degraded"
	default:
		v.Headline, v.Tone = "Unbroken since "+day+"; "+entries+"; head signed "+at(h.At), "healthy"
	}
	v.Checked = at(h.Checked)
	s.Shape("verdict", v.Headline, v.Broken, v.Checked)
}

// stop ends a sentence.
func stop(s string) string {
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

// Command writes the command that shows the same entries.
func Command(f rest.AuditFilter) string {
	s := "fulmar audit list"
	add := func(name, v string) {
		if v != "" {
			s += " --" + name + " '" + strings.ReplaceAll(v, "'", `'\''`) + "'"
		}
	}
	add("who", f.Who)
	add("what", f.What)
	add("board", f.Board)
	if !f.From.IsZero() {
		add("from", f.From.UTC().Format(time.RFC3339))
	}
	if !f.To.IsZero() {
		add("to", f.To.UTC().Format(time.RFC3339))
	}
	return s
}
