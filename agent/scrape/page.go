// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
)

// mediaType is Prometheus' text format.
const mediaType = "text/plain; version=0.0.4; charset=utf-8"

// Page gathers what one scrape is told. It writes Prometheus' text format itself: two kinds
// of metric need no library with protobuf inside, which would be a twentieth of the program
// and 1.5 MB of a board's memory (docs/adr/0009).
type Page struct{ samples []sample }

type sample struct {
	name, kind, help string
	labels           string // as written, in braces; "" without any
	value            float64
}

// Gauge adds a value that goes up and down. Labels are names and values in turn; names of
// metrics and labels are the caller's own and are not checked.
func (p *Page) Gauge(name, help string, v float64, labels ...string) {
	p.samples = append(p.samples, sample{name, "gauge", help, braced(labels), v})
}

// Counter adds a value that only goes up.
func (p *Page) Counter(name, help string, v uint64, labels ...string) {
	p.samples = append(p.samples, sample{name, "counter", help, braced(labels), float64(v)})
}

// write writes all that was added, metric by metric as the format wants it. Of two samples
// with the same labels the first stays: a scraper would refuse the page for the second.
func (p *Page) write(w io.Writer) error {
	slices.SortStableFunc(p.samples, func(a, b sample) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.labels, b.labels))
	})
	b := make([]byte, 0, 128*len(p.samples)) // a line is about 60 bytes, and so is a help
	last := sample{}
	for i, s := range p.samples {
		if i > 0 && s.name == last.name && s.labels == last.labels {
			continue
		}
		if i == 0 || s.name != last.name {
			b = append(b, "# HELP "...)
			b = append(b, s.name...)
			b = append(b, ' ')
			b = append(b, escaped(s.help, false)...)
			b = append(b, "\n# TYPE "...)
			b = append(b, s.name...)
			b = append(b, ' ')
			b = append(b, s.kind...)
			b = append(b, '\n')
		}
		b = append(b, s.name...)
		b = append(b, s.labels...)
		b = append(b, ' ')
		b = strconv.AppendFloat(b, s.value, 'g', -1, 64) // +Inf and NaN as the format has them
		b = append(b, '\n')
		last = s
	}
	_, err := w.Write(b)
	return err
}

func braced(labels []string) string {
	if len(labels) < 2 {
		return ""
	}
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(labels[i])
		b.WriteString(`="`)
		b.WriteString(escaped(labels[i+1], true))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// escaped is a text as the format wants it, in UTF-8 whatever a camera is called.
func escaped(s string, quotes bool) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if !strings.ContainsAny(s, "\\\n\"") {
		return s
	}
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = strings.ReplaceAll(s, "\n", `\n`)
	if quotes {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return s
}
