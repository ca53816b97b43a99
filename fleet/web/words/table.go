// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package words

import "time"

// tableRows is how many stretches a chart's table has: what a person reads at a glance.
const tableRows = 12

// Table is a chart as numbers, for those who cannot see it or want to copy it.
type Table struct {
	Heads []string // the lines
	Rows  []TableRow
}

// TableRow is one stretch of time: its begin and the mean of each line, "" where nothing
// is stored.
type TableRow struct {
	At    string
	Cells []string
}

// Tabled makes the table of a card from the points that are drawn. At is in the zone of
// from, and has the day where the chart is longer than one.
func Tabled(c Card, by map[string]Points, from, to time.Time) (t Table) {
	step := to.Sub(from) / tableRows
	form := "15:04"
	if to.Sub(from) >= 24*time.Hour {
		form = "2006-01-02 15:04"
	}
	for _, l := range c.Lines[:c.Plotted] {
		t.Heads = append(t.Heads, l.Label)
	}
	any := false
	for i := range tableRows {
		begin := from.Add(time.Duration(i) * step)
		row := TableRow{At: begin.Format(form)}
		for _, l := range c.Lines[:c.Plotted] {
			sum, n := 0.0, 0
			p := by[l.Series]
			for k, at := range p.T {
				if at >= begin.UnixMilli() && at < begin.Add(step).UnixMilli() && k < len(p.V) {
					sum, n = sum+p.V[k], n+1
				}
			}
			cell := ""
			if n > 0 {
				cell, any = Quantity(sum/float64(n), c.Unit), true
			}
			row.Cells = append(row.Cells, cell)
		}
		t.Rows = append(t.Rows, row)
	}
	if !any {
		return Table{}
	}
	return t
}
