// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bufio"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"fulmar/schema"
	"fulmar/storage/salvage"
)

// timeFormat is RFC 3339 with milliseconds, as the board's clock told them.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

func when(ms int64) string { return time.UnixMilli(ms).UTC().Format(timeFormat) }

// csvWriter writes one line for each reading.
type csvWriter struct {
	w    *csv.Writer
	left int
	err  error
	line [7]string
}

func newCSV(b *bufio.Writer) *csvWriter {
	c := &csvWriter{w: csv.NewWriter(b)}
	c.err = c.w.Write([]string{"time", "series", "value", "quality", "min", "max", "count"})
	return c
}

func (c *csvWriter) skipped() int { return c.left }

func (c *csvWriter) flush() error {
	c.w.Flush()
	return c.w.Error()
}

func (c *csvWriter) record(r salvage.Record) error {
	if r.Body == nil || r.Body.Samples == nil {
		c.left++
		return c.err
	}
	s := r.Body.Samples
	for i, v := range readings(s) {
		c.line = [7]string{when(r.Body.Time.Wall), s.Series[i], number(v.Value), v.Quality, number(v.Min), number(v.Max), ""}
		if v.Count != nil {
			c.line[6] = strconv.FormatUint(uint64(*v.Count), 10)
		}
		if err := c.w.Write(c.line[:]); err != nil {
			return err
		}
	}
	return c.err
}

func number(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'g', -1, 64)
}

// reading is one value of a batch of samples. A reading that is not good has no
// number.
type reading struct {
	Series  string   `json:"series"`
	Value   *float64 `json:"value"`
	Quality string   `json:"quality"`
	Min     *float64 `json:"min,omitempty"`
	Max     *float64 `json:"max,omitempty"`
	Count   *uint32  `json:"count,omitempty"`
}

func readings(s *schema.Samples) []reading {
	out := make([]reading, len(s.Series))
	for i := range out {
		q := schema.QualityGood
		if s.Quality != nil {
			q = s.Quality[i]
		}
		out[i] = reading{Series: s.Series[i], Quality: q.String()}
		if q == schema.QualityGood {
			out[i].Value = &s.Value[i]
		}
		if o := s.Over; o != nil {
			out[i].Count = &o.Count[i]
			if o.Count[i] == 0 {
				out[i].Value = nil
			} else {
				out[i].Min, out[i].Max = &o.Min[i], &o.Max[i]
			}
		}
	}
	return out
}

// jsonl writes one record a line.
type jsonl struct{ enc *json.Encoder }

func newJSONL(b *bufio.Writer) *jsonl {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	return &jsonl{e}
}

func (j *jsonl) skipped() int { return 0 }
func (j *jsonl) flush() error { return nil }

// line is a record in JSON: its identity, then its body by kind. Epochs are
// hexadecimal strings: as numbers, most readers would round them.
type line struct {
	Class       string `json:"class"`
	Epoch       string `json:"epoch"`
	Seq         uint64 `json:"seq"`
	Stored      string `json:"stored"`
	Acked       bool   `json:"acknowledged,omitempty"`
	Quarantined bool   `json:"quarantined,omitempty"`
	Kind        string `json:"kind,omitempty"`
	Time        string `json:"time,omitempty"`
	Boot        string `json:"boot,omitempty"`
	MonoNs      int64  `json:"mono_ns,omitempty"`
	Body        any    `json:"body,omitempty"`
	Error       string `json:"error,omitempty"`
	Payload     []byte `json:"payload,omitempty"` // base64, where it cannot be decoded
}

func (j *jsonl) record(r salvage.Record) error {
	l := line{
		Class: r.Class.String(), Epoch: fmt.Sprintf("%016x", r.Epoch), Seq: r.Seq, Stored: r.Stored.Format(timeFormat),
		Acked: r.Settled, Quarantined: r.Quarantined,
	}
	if r.Body == nil {
		l.Error, l.Payload = r.Err.Error(), r.Payload
		return j.enc.Encode(&l)
	}
	t := r.Body.Time
	l.Kind, l.Time, l.Boot, l.MonoNs = r.Body.Kind.String(), when(t.Wall), fmt.Sprintf("%016x", t.Boot), t.Mono
	if l.Body = body(r.Body); l.Body == nil { // a kind that came after this was written
		l.Error, l.Payload = "this version of fulmar has no form for the kind", r.Payload
	}
	return j.enc.Encode(&l)
}

// body gives the part of a record that its kind names, in words.
func body(r *schema.Record) any {
	switch {
	case r.Samples != nil && r.Samples.Over != nil:
		return map[string]any{"span_ms": r.Samples.Over.SpanMs, "readings": readings(r.Samples)}
	case r.Samples != nil:
		return map[string]any{"readings": readings(r.Samples)}
	case r.Event != nil:
		e := r.Event
		return map[string]any{
			"source": e.Source, "model": e.Model, "engine": e.Engine, "frame": e.Frame, "width": e.Width, "height": e.Height,
			"boxes": boxes(e.Boxes, e.Labels), "truth": boxes(e.Truth, e.Labels), "snapshot": e.Snapshot, "latency_us": e.LatencyUs,
		}
	case r.Gap != nil:
		g := r.Gap
		m := map[string]any{"class": g.Class.String(), "epoch": fmt.Sprintf("%016x", g.Epoch), "first": g.First, "last": g.Last, "reason": g.Reason.String()}
		if g.FromWall != 0 || g.ToWall != 0 {
			m["from"], m["to"] = when(g.FromWall), when(g.ToWall)
		}
		return m
	case r.Snapshot != nil:
		s := r.Snapshot
		return map[string]any{"name": s.Name, "size": s.Size, "sha256": hex.EncodeToString(s.SHA256[:]), "media": s.Media, "source": s.Source, "frame": s.Frame}
	case r.Report != nil:
		p := r.Report
		return map[string]any{"subject": p.Subject, "state": p.State, "severity": p.Severity, "text": p.Text}
	case r.Anchor != nil:
		a := r.Anchor
		return map[string]any{"old_offset_ms": a.Old, "new_offset_ms": a.New, "synced": a.Synced, "start": a.Start}
	}
	return nil
}

// box is a detection or a truth.
type box struct {
	Class uint16     `json:"class"`
	Label string     `json:"label,omitempty"`
	Score float32    `json:"score"`
	Box   [4]float32 `json:"box"` // x0, y0, x1, y1 in pixels
	Match string     `json:"match,omitempty"`
}

func boxes(in []schema.Box, labels map[uint16]string) []box {
	out := make([]box, 0, len(in))
	for _, b := range in {
		match := map[schema.Match]string{schema.MatchTrue: "true", schema.MatchFalse: "false", schema.MatchMissed: "missed"}[b.Match]
		out = append(out, box{b.Class, labels[b.Class], b.Score, [4]float32{b.X0, b.Y0, b.X1, b.Y1}, match})
	}
	return out
}
