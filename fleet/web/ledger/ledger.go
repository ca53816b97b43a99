// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ledger puts the loss ledger into words: what was lost and why, what was
// kept only as summaries, and what has not arrived yet, told apart.
package ledger

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// near is how far apart two losses of one kind may be and still be one line.
const near = 2 * time.Minute

// Class is the book of one class: Made = Arrived + Lost + Waiting.
type Class struct {
	Class   string `json:"class"`
	Epochs  int    `json:"epochs"`
	Made    uint64 `json:"made"`    // highest number heard of, summed over epochs
	Arrived uint64 `json:"arrived"` // stored, each once
	Lost    uint64 `json:"lost"`    // inside gaps and not arrived
	Waiting uint64 `json:"waiting"` // neither: still on the board or on its way
	// Duplicates counts second arrivals that were turned away.
	Duplicates uint64 `json:"duplicates"`
	// Reasons are the numbers in Lost by reason, in the words of schema.Reason. Those
	// of "thinned" live on in summaries; those of "crash" were reserved when the
	// board stopped and may never have been used.
	Reasons map[string]uint64 `json:"reasons,omitempty"`
	// Oldest is a moment that nothing in Waiting is older than; zero unknown.
	Oldest time.Time `json:"oldest,omitzero"`
}

// Gap is one loss with its reason.
type Gap struct {
	Class  string    `json:"class"`
	First  uint64    `json:"first"`
	Last   uint64    `json:"last"`
	Count  uint64    `json:"count"` // lost by it: numbers in the range that never arrived
	Reason string    `json:"reason"`
	From   time.Time `json:"from"` // zero: unknown
	To     time.Time `json:"to"`
	At     time.Time `json:"at"` // when the board wrote it
}

// Board is what a board's ledger is written from.
type Board struct {
	Name    string
	Classes []Class
	Gaps    []Gap // newest first
	Online  bool
	Since   time.Time // it is not connected since
}

// sums are those of several classes or boards. Lost leaves out what was thinned,
// and the numbers of crashes: most of those were never used.
type sums struct{ made, arrived, lost, thinned, crash, waiting uint64 }

func (s *sums) add(cs []Class) {
	for i := range cs {
		c := &cs[i]
		thinned := min(c.Reasons[schema.ReasonThinned.String()], c.Lost)
		s.made += c.Made
		s.arrived += c.Arrived
		crash := min(c.Reasons[schema.ReasonCrash.String()], c.Lost-thinned)
		s.lost += c.Lost - thinned - crash
		s.thinned += thinned
		s.crash += crash
		s.waiting += c.Waiting
	}
}

// atMost writes what was lost with a crash: "at most 312".
func (s *sums) atMost() string {
	if s.crash > 0 {
		return "at most " + words.Count(s.lost+s.crash)
	}
	return words.Count(s.lost)
}

// View is the ledger of one board, ready for the template.
type View struct {
	Sentence template.HTML
	Any      bool // something was made
	Thin     bool // something was thinned: the table has a column for it
	Clean    bool // nothing was lost or thinned
	Rows     []Row
	Waiting  []template.HTML // a sentence for each class of which something waits, or for a board that is away
	Lost     []Line
	Thinned  []Line
	Sums     string // all losses by reason, where the lines do not hold them all
}

// Row is one class in the table.
type Row struct {
	Class                                            string
	Made, Arrived, Lost, Thinned, Waiting, Duplicate template.HTML
}

// Line is one loss in words.
type Line struct{ What, Why, When, Numbers string }

// Build writes a board's ledger on the sheet of a page.
func Build(p *live.Sheet, b *Board) View {
	var s sums
	s.add(b.Classes)
	v := View{Any: len(b.Classes) > 0, Thin: s.thinned > 0, Clean: s.lost+s.crash+s.thinned == 0}
	parts := words.Count(s.made) + " made = " + words.Count(s.arrived) + " arrived"
	if s.thinned > 0 {
		parts += " + " + words.Count(s.thinned) + " thinned"
	}
	parts += " + " + words.Count(s.lost) + " lost"
	if s.crash > 0 {
		parts += " + at most " + words.Count(s.crash) + " lost in a crash"
	}
	v.Sentence = p.Text("book", parts+" + "+words.Count(s.waiting)+" waiting")
	var waits []string
	for i := range b.Classes {
		c := &b.Classes[i]
		var one sums
		one.add(b.Classes[i : i+1])
		k := "book|" + c.Class + "|"
		n := func(what string, v uint64) template.HTML { return p.Text(k+what, words.Count(v)) }
		r := Row{
			Class: c.Class, Made: n("made", c.Made), Arrived: n("arrived", c.Arrived), Lost: p.Text(k+"lost", one.atMost()),
			Waiting: n("waiting", c.Waiting), Duplicate: n("dup", c.Duplicates),
		}
		if v.Thin {
			r.Thinned = n("thinned", one.thinned)
		}
		v.Rows = append(v.Rows, r)
		if c.Waiting > 0 {
			waits = append(waits, c.Class)
			v.Waiting = append(v.Waiting, p.Text(k+"waits", waiting(p, b, c)))
		}
	}
	if v.Any && len(v.Waiting) == 0 && !b.Online && !b.Since.IsZero() {
		v.Waiting = append(v.Waiting, p.Text("book|offline", "The board is offline since "+stamp(p, b.Since)+"; what it makes meanwhile is counted when it is back"))
	}
	lines := uint64(0)
	for _, g := range joined(b.Gaps) {
		lines += g.Count
		if g.Reason == schema.ReasonThinned.String() {
			v.Thinned = append(v.Thinned, line(p, &g))
		} else {
			v.Lost = append(v.Lost, line(p, &g))
		}
	}
	if lines < s.lost+s.crash+s.thinned {
		v.Sums = byReason(b.Classes)
	}
	p.Shape("ledger", len(b.Classes), b.Gaps, waits, b.Online, v.Thin, v.Clean, v.Sums)
	return v
}

// waiting says what has not arrived of a class, and why that may be.
func waiting(p *live.Sheet, b *Board, c *Class) string {
	s := "Not yet arrived: " + records(c.Class, c.Waiting)
	if !c.Oldest.IsZero() {
		s += ", oldest from " + stamp(p, c.Oldest)
	}
	switch {
	case b.Online:
		return s + "; the board is connected and sends them"
	case b.Since.IsZero():
		return s + "; the board is offline"
	}
	return s + "; the board is offline since " + stamp(p, b.Since)
}

// line writes one loss.
func line(p *live.Sheet, g *Gap) Line {
	l := Line{What: "Lost " + records(g.Class, g.Count), Why: Why(g.Reason)}
	switch g.Reason {
	case schema.ReasonCrash.String():
		l.What = "Lost at most " + records(g.Class, g.Count)
	case schema.ReasonThinned.String():
		l.What = sentence(records(g.Class, g.Count))
	}
	switch {
	case g.From.IsZero() || g.To.IsZero():
		l.When = "time unknown, written down " + stamp(p, g.At)
	case g.From.Equal(g.To):
		l.When = stamp(p, g.From)
	default:
		l.When = stamp(p, g.From) + " to " + stamp(p, g.To)
	}
	if g.First > 0 {
		l.Numbers = "no. " + words.Count(g.First)
		if g.Last > g.First {
			l.Numbers += " to " + words.Count(g.Last)
		}
	}
	return l
}

// joined makes one of losses of one kind that follow each other; a line made of
// ranges that do not touch has no numbers.
func joined(gaps []Gap) []Gap {
	var out []Gap
	for _, g := range gaps {
		if g.Count == 0 {
			continue // it all came after all
		}
		n := len(out) - 1
		if n < 0 || out[n].Class != g.Class || out[n].Reason != g.Reason {
			out = append(out, g)
			continue
		}
		last := &out[n]
		known := !g.From.IsZero() && !g.To.IsZero() && !last.From.IsZero() && !last.To.IsZero()
		switch touch := g.Last+1 == last.First; {
		case known && last.From.Sub(g.To).Abs() > near, !known && !touch:
			out = append(out, g)
			continue
		case touch:
			last.First = g.First
		default:
			last.First, last.Last = 0, 0
		}
		last.Count += g.Count
		if known {
			last.From = earlier(last.From, g.From)
			last.To = later(last.To, g.To)
		}
	}
	return out
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// byReason sums all losses up: "In all 4,100 samples: its share of the disk was full".
func byReason(cs []Class) string {
	var parts []string
	for i := range cs {
		told := uint64(0)
		for _, r := range slices.SortedFunc(maps.Keys(cs[i].Reasons), func(a, b string) int {
			return cmp.Or(cmp.Compare(cs[i].Reasons[b], cs[i].Reasons[a]), cmp.Compare(a, b))
		}) {
			if n := cs[i].Reasons[r]; n > 0 {
				told += n
				parts = append(parts, records(cs[i].Class, n)+": "+Why(r))
			}
		}
		if told < cs[i].Lost {
			parts = append(parts, records(cs[i].Class, cs[i].Lost-told)+": the board has not said why")
		}
	}
	return "In all " + strings.Join(parts, "; ") + "."
}

// Why gives a reason of schema.Reason in plain words; others as they are.
func Why(reason string) string {
	for r, why := range map[schema.Reason]string{
		schema.ReasonCrash:      "the board stopped without warning; these numbers were set aside and may never have been used",
		schema.ReasonQuota:      "the space set aside for them was full, so the oldest gave way",
		schema.ReasonDiskFull:   "the disk was full",
		schema.ReasonCorrupt:    "they were damaged on the disk",
		schema.ReasonOversize:   "too large to be sent",
		schema.ReasonBlobGone:   "the picture gave way to newer ones before it was sent",
		schema.ReasonThinned:    "kept as 1-minute summaries to save space",
		schema.ReasonUnsavable:  "the disk failed and memory was full",
		schema.ReasonKeyLost:    "the key that they were encrypted with is gone",
		schema.ReasonExpired:    "they grew older than the time to live set for them before they could be sent",
		schema.ReasonRefused:    "the broker ended each connection that carried them",
		schema.ReasonUnreadable: "they came, and this fleet could not read them",
		schema.ReasonFreed:      "they were acknowledged to the board and are not at this fleet: it could not read what carried them, or somebody else acknowledged them",
	} {
		if r.String() == reason {
			return why
		}
	}
	return reason
}

// Fleet sums up the ledgers of all boards in one sentence.
func Fleet(boards []Board) string {
	var all sums
	var losers, crashed, waiters []string
	for i := range boards {
		b := &boards[i]
		var s sums
		s.add(b.Classes)
		all.add(b.Classes)
		if s.lost > 0 {
			losers = append(losers, b.Name)
		}
		if s.crash > 0 {
			crashed = append(crashed, b.Name)
		}
		if s.waiting > 0 {
			waiters = append(waiters, b.Name)
		}
	}
	switch {
	case all.made == 0:
		return ""
	case all.lost+all.crash+all.thinned+all.waiting == 0:
		return "Nothing is lost: all " + words.Count(all.made) + " records made have arrived."
	}
	var parts []string
	switch {
	case all.lost > 0:
		parts = append(parts, isAre(all.lost)+" lost "+on("on", losers))
	case all.crash == 0:
		parts = append(parts, "none is lost")
	}
	if all.crash > 0 {
		parts = append(parts, "at most "+isAre(all.crash)+" lost in crashes "+on("on", crashed))
	}
	if all.waiting > 0 {
		parts = append(parts, words.Count(all.waiting)+" not yet arrived "+on("from", waiters))
	}
	if all.thinned > 0 {
		parts = append(parts, words.Count(all.thinned)+" kept as 1-minute summaries")
	}
	return "Of " + words.Count(all.made) + " records made " + strings.Join(parts, ", ") + "."
}

func isAre(n uint64) string {
	if n == 1 {
		return "1 is"
	}
	return words.Count(n) + " are"
}

// on names one board and counts several.
func on(word string, names []string) string {
	if len(names) == 1 {
		return word + " " + names[0]
	}
	return word + " " + words.Plural(len(names), "board", "boards")
}

// records counts records of a class by what people call them.
func records(class string, n uint64) string {
	name := map[string][2]string{
		"alarm": {"alarm", "alarms"}, "event": {"event", "events"}, "metric": {"sample", "samples"}, "snapshot": {"picture", "pictures"},
	}[class]
	if name[0] == "" {
		name = [2]string{"record", "records"}
	}
	if n == 1 {
		return "1 " + name[0]
	}
	return words.Count(n) + " " + name[1]
}

func sentence(s string) string { return words.Sentence(s) }

// stamp writes a moment to the minute: the clock alone for today.
func stamp(p *live.Sheet, t time.Time) string {
	t = t.In(p.At.Location())
	if y, m, d := t.Date(); fmt.Sprint(y, m, d) == fmt.Sprint(p.At.Date()) {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}
