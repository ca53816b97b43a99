// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package powerloss_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"fulmar/schema"
)

// name is a record's name.
type name struct {
	class schema.Class
	epoch uint64
	seq   uint64
}

// facts is what the notes up to a moment say.
type facts struct {
	durable   map[name]uint64 // record number i, as Append said
	queued    map[name]uint64 // metrics, not durable before a flush
	flushed   map[name]bool   // of class and epoch: the highest number flushed, in seq
	acked     map[name]uint64 // taken by the fleet; i
	refused   map[name]bool
	gaps      []schema.Gap // taken by the fleet
	session   int          // the last one opened
	closed    bool         // it said that it has closed
	filed     uint64       // content of the small file that was surely written
	filing    uint64       // and the one that was perhaps
	fileKnown bool
}

// gather reads the notes.
func gather(notes []string) (*facts, error) {
	f := &facts{
		durable: map[name]uint64{}, queued: map[name]uint64{}, flushed: map[name]bool{},
		acked: map[name]uint64{}, refused: map[name]bool{}, session: -1,
	}
	for _, n := range notes {
		if err := f.add(n); err != nil {
			return nil, fmt.Errorf("note %q: %w", n, err)
		}
	}
	return f, nil
}

func (f *facts) add(note string) (err error) {
	word, rest, _ := strings.Cut(note, " ")
	var n name
	var i uint64
	switch word {
	case "ok", "queued", "ack":
		_, err = fmt.Sscanf(rest, "%d %x %d %x", &n.class, &n.epoch, &n.seq, &i)
		map[string]map[name]uint64{"ok": f.durable, "queued": f.queued, "ack": f.acked}[word][n] = i
	case "refuse":
		_, err = fmt.Sscanf(rest, "%d %x %d", &n.class, &n.epoch, &n.seq)
		f.refused[n] = true
	case "flushed":
		_, err = fmt.Sscanf(rest, "%d %x %d", &n.class, &n.epoch, &n.seq)
		f.flush(func(q name) bool { return q.class == n.class && q.epoch == n.epoch && q.seq <= n.seq })
	case "gap":
		var g schema.Gap
		_, err = fmt.Sscanf(rest, "%d %x %d %d %d", &g.Class, &g.Epoch, &g.First, &g.Last, &g.Reason)
		f.gaps = append(f.gaps, g)
	case "file":
		_, err = fmt.Sscanf(rest, "%x", &f.filing)
	case "filed":
		_, err = fmt.Sscanf(rest, "%x", &f.filed)
		f.fileKnown = true
	case "open":
		_, err = fmt.Sscanf(rest, "%d", &f.session)
		f.closed = false
		clear(f.queued) // of a session that was killed
	case "closing":
	case "closed":
		f.closed = true
		f.flush(func(name) bool { return true })
	default:
		err = fmt.Errorf("unknown word")
	}
	return err
}

// flush makes queued metrics durable.
func (f *facts) flush(which func(name) bool) {
	for n, i := range f.queued {
		if which(n) {
			f.durable[n] = i
			delete(f.queued, n)
		}
	}
}

// judge holds what was found against the facts and says all that is wrong, at
// most a few lines.
func judge(p profile, f *facts, got found) []string {
	if got.Err != "" {
		return []string{got.Err, "its log:\n" + got.Log}
	}
	v := &verdict{p: p, facts: f, found: got, have: map[name]uint64{}, where: map[uint64]name{}, gaps: map[schema.Class][]schema.Gap{}}
	v.records()
	v.gapsFit()
	v.durable()
	if len(v.wrong) == 0 { // it looks at each number, and may have millions to name where all is lost
		v.complete()
	}
	v.fresh()
	v.file()
	return v.wrong
}

type verdict struct {
	p     profile
	facts *facts
	found found
	have  map[name]uint64
	where map[uint64]name // of record i
	gaps  map[schema.Class][]schema.Gap
	wrong []string
}

func (v *verdict) say(format string, args ...any) {
	if len(v.wrong) < 6 {
		v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
	}
}

// records: none twice, none under the number of another, none from the future.
func (v *verdict) records() {
	for _, r := range v.found.Records {
		n := name{r.Class, r.Epoch, r.Seq}
		if _, twice := v.have[n]; twice {
			v.say("%s %d was read twice", r.Class, r.Seq)
		}
		v.have[n] = r.I
		if r.Summary {
			continue
		}
		if s := int(r.I >> (makerShift + 8)); s > v.facts.session && s < freshSession {
			v.say("%s %d is of session %d, only %d had begun", r.Class, r.Seq, s, v.facts.session)
		}
		if other, twice := v.where[r.I]; twice && other != n {
			v.say("%s %d and %d are the same record %x", r.Class, r.Seq, other.seq, r.I)
		}
		v.where[r.I] = n
		for _, known := range []map[name]uint64{v.facts.durable, v.facts.acked} {
			if i, ok := known[n]; ok && i != r.I {
				v.say("%s %d is record %x and was %x", r.Class, r.Seq, r.I, i)
			}
		}
	}
	for n, i := range v.facts.acked {
		if other, ok := v.where[i]; ok && i != 0 && other != n && n.class == other.class {
			v.say("%s %d was acknowledged and is there again as %d", n.class, n.seq, other.seq)
		}
	}
}

// gapsFit: gaps are of the class's epoch, inside its numbers, and for reasons that
// a power loss can bring about.
func (v *verdict) gapsFit() {
	for _, g := range slices.Concat(v.found.Gaps, v.facts.gaps) {
		v.gaps[g.Class] = append(v.gaps[g.Class], g)
		cur := v.cursor(g.Class)
		if g.Epoch != cur.Epoch || g.First < 1 || g.Last > cur.Last {
			v.say("gap %+v does not fit cursor %+v", g, cur)
		}
		switch g.Reason {
		case schema.ReasonCrash, schema.ReasonOversize:
		case schema.ReasonQuota, schema.ReasonThinned:
			if !v.p.tight {
				v.say("gap %+v where all fits", g)
			}
		default:
			// A loss between the crash gap of a start and its cursor tells the alarm
			// numbers in between once more, as corrupt: they were never used. The other
			// classes have both on disk before they begin a file above such a gap.
			if g.Reason != schema.ReasonCorrupt || g.Class != schema.ClassAlarm || !v.told(g) {
				v.say("gap %+v: a power loss brings no such reason", g)
			}
		}
	}
}

// told tells whether all of a gap is also in crash gaps.
func (v *verdict) told(g schema.Gap) bool {
	crash := func(seq uint64) bool {
		return slices.ContainsFunc(slices.Concat(v.found.Gaps, v.facts.gaps), func(o schema.Gap) bool {
			return o.Reason == schema.ReasonCrash && o.Class == g.Class && o.Epoch == g.Epoch && o.First <= seq && seq <= o.Last
		})
	}
	for seq := g.First; seq <= g.Last; seq++ {
		if g.Last-g.First > 4096 || !crash(seq) {
			return false
		}
	}
	return true
}

func (v *verdict) cursor(c schema.Class) schema.Cursor {
	for _, cur := range v.found.Cursors {
		if cur.Class == c {
			return cur
		}
	}
	v.say("no cursor of %s", c)
	return schema.Cursor{}
}

func (v *verdict) gap(n name, reasons ...schema.Reason) *schema.Gap {
	for i, g := range v.gaps[n.class] {
		if g.Epoch == n.epoch && g.First <= n.seq && n.seq <= g.Last && (len(reasons) == 0 || slices.Contains(reasons, g.Reason)) {
			return &v.gaps[n.class][i]
		}
	}
	return nil
}

// durable: what was promised is there, or was taken, or was given up by quota.
func (v *verdict) durable() {
	for n, i := range v.facts.durable {
		if cur := v.cursor(n.class); cur.Epoch != n.epoch {
			v.say("%s begins anew as epoch %x, had durable records in %x", n.class, cur.Epoch, n.epoch)
			return
		}
		_, acked := v.facts.acked[n]
		_, have := v.have[n]
		switch {
		case have || acked:
		case v.facts.refused[n] && v.gap(n, schema.ReasonOversize) != nil:
		case v.gap(n, schema.ReasonQuota, schema.ReasonThinned) != nil:
		case v.gap(n) != nil:
			v.say("%s %d (%x) was durable and is in gap %+v", n.class, n.seq, i, *v.gap(n))
		default:
			v.say("%s %d (%x) was durable and is gone without a word", n.class, n.seq, i)
		}
	}
}

// numbersMax is more than a life can use up.
const numbersMax = 1 << 20

// complete: each number is a record, settled by us, or inside a gap.
func (v *verdict) complete() {
	for _, cur := range v.found.Cursors {
		if cur.Last > numbersMax {
			v.say("%s stands at number %d, nobody was given that many", cur.Class, cur.Last)
			continue
		}
		for seq := uint64(1); seq <= cur.Last; seq++ {
			n := name{cur.Class, cur.Epoch, seq}
			_, acked := v.facts.acked[n]
			_, have := v.have[n]
			if !have && !acked && v.gap(n) == nil {
				v.say("%s %d of %d (acknowledged to %d) is neither a record nor settled nor in a gap", cur.Class, seq, cur.Last, cur.Acked)
				break
			}
		}
	}
}

// fresh: a new record gets a number that nobody has seen.
func (v *verdict) fresh() {
	for _, r := range v.found.Fresh {
		for _, known := range []map[name]uint64{v.facts.durable, v.facts.acked, v.have} {
			for n := range known {
				if n.class == r.Class && n.epoch == v.cursor(n.class).Epoch && n.seq >= r.Seq {
					v.say("%s gave number %d again, %d was in use", r.Class, r.Seq, n.seq)
					return
				}
			}
		}
	}
	if len(v.found.Fresh) != schema.NumClasses {
		v.say("only %d classes took a record", len(v.found.Fresh))
	}
	if !v.facts.closed {
		return
	}
	for _, g := range v.found.Gaps { // a clean stop loses nothing of its session
		for n := range v.facts.durable {
			if g.Reason == schema.ReasonCrash && n.class == g.Class && n.epoch == g.Epoch && g.First > v.highest(g.Class) {
				v.say("gap %+v after a clean stop", g)
				return
			}
		}
	}
}

// highest is the highest number that a note names.
func (v *verdict) highest(c schema.Class) (max uint64) {
	for _, known := range []map[name]uint64{v.facts.durable, v.facts.acked} {
		for n := range known {
			if n.class == c && n.seq > max {
				max = n.seq
			}
		}
	}
	return max
}

// file: the small file has one of its contents, whole, and not an older one.
func (v *verdict) file() {
	if len(v.found.File) == 0 {
		if v.facts.fileKnown {
			v.say("the small file is gone")
		}
		return
	}
	kind, i, _ := identify(schema.ClassEvent, v.found.File)
	if kind != isOurs || v.facts.fileKnown && i < v.facts.filed || i > v.facts.filing {
		v.say("the small file holds %x (kind %d), surely written was %x, at most %x", i, kind, v.facts.filed, v.facts.filing)
	}
}

// String is for the log of a failed point.
func (f *facts) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "session %d (closed %v), %d durable, %d acknowledged, %d refused, %d gaps taken", f.session, f.closed, len(f.durable), len(f.acked), len(f.refused), len(f.gaps))
	return b.String()
}
