// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package points turns rows of the ledger into samples of time series: it decides what
// series are called, which labels they carry, and how many a board and a tenant may have.
//
// A reading of "thermal.cpu_celsius" becomes
//
//	fulmar_thermal_celsius{tenant="default", board="dock-1", site="north", series="thermal.cpu_celsius"}
//
// The metric is the first word and the unit, so that one expression takes all sensors
// of a kind; series is the name as the page, the API and the command line have it.
// ADR 0041 has the reasons.
package points

import (
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// Labels that the fleet sets.
const (
	LabelTenant = "tenant"
	LabelBoard  = "board"
	LabelSite   = "site"
	LabelSeries = "series"
)

// Board is whose samples they are. ID is the board's number in the ledger.
type Board struct {
	ID                 int64
	Tenant, Name, Site string
}

// Series is one time series.
type Series struct {
	Labels labels.Labels
	// Ref is for the sink to find the series again; 0 unknown. A sink that forgets sets it.
	Ref uint64

	used int64 // ms, of the newest point taken
}

// Point is one sample.
type Point struct {
	Series *Series
	T      int64 // ms since 1970
	V      float64
}

// Metric gives the name of the metric that a board's series belongs to.
func Metric(series string) string {
	prefix, _, unit := words.ParseSeries(series)
	if prefix == "" { // no word before a dot
		prefix = "reading"
	}
	name := "fulmar_" + clean(prefix)
	if unit != words.UnitNone {
		name += "_" + string(unit)
	}
	return name
}

// clean makes a part of a metric's name of a part of a series' name.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}

// Readings appends the samples of a batch made at the given moment, ms. A reading that
// is not good is no sample. A summary gives its mean in the ordinary series, so that a
// line has no hole where a board was thinned, at the middle of its span, and its lowest
// and highest reading in series of their own, _min and _max.
func (k *Book) Readings(dst []Point, b Board, at int64, s *schema.Samples) []Point {
	if s.Over != nil {
		at += s.Over.SpanMs / 2
	}
	for i, name := range s.Series {
		if s.Quality != nil && s.Quality[i] != schema.QualityGood || s.Over != nil && s.Over.Count[i] == 0 {
			continue
		}
		dst = k.reading(dst, b, name, "", at, s.Value[i])
		if s.Over != nil {
			dst = k.reading(dst, b, name, "_min", at, s.Over.Min[i])
			dst = k.reading(dst, b, name, "_max", at, s.Over.Max[i])
		}
	}
	return dst
}

func (k *Book) reading(dst []Point, b Board, series, suffix string, at int64, v float64) []Point {
	s := k.series(b, series+suffix, at, func() labels.Labels {
		return Labels(b, Metric(series)+suffix, LabelSeries, series)
	})
	if s == nil {
		return dst
	}
	return append(dst, Point{s, at, v})
}

// Event is what the ledger knows of a detection event beside its payload.
type Event struct {
	Known               bool // ground truth is known
	True, False, Missed int  // boxes, where it is
}

// Detections appends the samples of one event, at the event's own moment, ms: boxes
// per class, the worker's latency, and what ground truth says. They are values of one
// moment and not counters: an event that comes a week late lies where it was seen, and
// sum_over_time(fulmar_detections[1h]) counts it there. count_over_time of the latency
// counts the events.
func (k *Book) Detections(dst []Point, b Board, at int64, e *schema.Event, known Event) []Point {
	add := func(metric, class string, v float64) {
		s := k.series(b, metric+"\xff"+e.Source+"\xff"+e.Model+"\xff"+class, at, func() labels.Labels {
			l := []string{"camera", e.Source, "model", e.Model}
			if class != "" {
				l = append(l, "class", class)
			}
			return Labels(b, metric, l...)
		})
		if s != nil {
			dst = append(dst, Point{s, at, v})
		}
	}
	add("fulmar_event_latency_seconds", "", float64(e.LatencyUs)/1e6)
	counts := map[uint16]int{}
	for _, box := range e.Boxes {
		counts[box.Class]++
	}
	for c, n := range counts {
		add("fulmar_detections", className(e, c), float64(n))
	}
	if known.Known {
		add("fulmar_detections_true", "", float64(known.True))
		add("fulmar_detections_false", "", float64(known.False))
		add("fulmar_detections_missed", "", float64(known.Missed))
	}
	return dst
}

func className(e *schema.Event, c uint16) string {
	if l := e.Labels[c]; l != "" {
		return strings.ToValidUTF8(l, "?")
	}
	return "class " + strconv.Itoa(int(c))
}

// Labels gives the label set of a metric of a board; more are pairs of name and value,
// empty values are left out.
func Labels(b Board, metric string, more ...string) labels.Labels {
	l := labels.NewScratchBuilder(5 + len(more)/2)
	l.Add(labels.MetricName, metric)
	l.Add(LabelTenant, b.Tenant)
	l.Add(LabelBoard, b.Name)
	if b.Site != "" {
		l.Add(LabelSite, strings.ToValidUTF8(b.Site, "?"))
	}
	for i := 0; i+1 < len(more); i += 2 {
		if more[i+1] != "" {
			l.Add(more[i], more[i+1])
		}
	}
	l.Sort()
	return l.Labels()
}
