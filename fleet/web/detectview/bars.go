// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package detectview

import (
	"context"
	"strconv"
	"time"

	"fulmar/fleet/web"
	"fulmar/fleet/web/words"
)

// bars are detections by the hour. Each is a link to its hour, so the picture is a way
// to a moment and not only a look.
type bars struct {
	Hours []bar
	Words string // what is drawn, in a sentence
	Note  string // what it leaves out
}

// bar is one hour. Y and H are per cent of the picture's height.
type bar struct {
	X, Y, W, H string
	Label      string
	Link       string
	On         bool // the hour is the one shown
}

// count draws the hours before now, or before the end of the filter.
func (v *wallView) count(ctx context.Context, c Counter, q web.DetectionQuery, now time.Time, link func(k, value string) string) error {
	const hour = time.Hour
	end := now
	if !v.F.to.IsZero() && v.F.to.Sub(v.F.from) != hour && v.F.to.Before(now) {
		end = v.F.to
	}
	first := end.Truncate(hour).Add(-(histogramHours - 1) * hour)
	q.From, q.To = first, first.Add(histogramHours*hour)
	list, more, err := c.Hours(ctx, q)
	if err != nil {
		return err
	}
	n, most, sum, busiest := [histogramHours]uint64{}, uint64(0), uint64(0), 0
	for _, h := range list {
		if i := int(h.At.Sub(first) / hour); i >= 0 && i < histogramHours {
			n[i] += h.Count
			sum += h.Count
			if n[i] > most {
				most, busiest = n[i], i
			}
		}
	}
	if most == 0 {
		return nil
	}
	pct := func(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) + "%" }
	const wide = 100.0 / histogramHours
	for i := range n {
		from := first.Add(time.Duration(i) * hour).In(now.Location())
		to := from.Add(hour)
		high := float64(n[i]) / float64(most) * 100
		if n[i] > 0 {
			high = max(high, 4) // few are not none
		}
		b := bar{
			X: pct(float64(i)*wide + 0.35), Y: pct(100 - high), W: pct(wide - 0.7), H: pct(high), On: v.F.from.Equal(from) && v.F.to.Equal(to),
			Label: from.Format("15:04") + " to " + to.Format("15:04") + ": " + words.Plural(int(n[i]), "detection", "detections"),
		}
		if n[i] > 0 {
			b.Link = link("from", from.Format("2006-01-02T15:04")) + "&to=" + to.Format("2006-01-02T15%3A04")
		}
		v.Bars.Hours = append(v.Bars.Hours, b)
	}
	at := first.Add(time.Duration(busiest) * hour).In(now.Location())
	v.Bars.Words = words.Count(sum) + " detections in 24 hours, most of them from " + at.Format("15:04") + " to " + at.Add(hour).Format("15:04")
	switch {
	case more:
		v.Bars.Note = "Only the newest " + words.Count(web.MaxCounted) + " are counted."
	case v.F.deep():
		v.Bars.Note = "Counted before the filters by model, class and confidence."
	}
	return nil
}
