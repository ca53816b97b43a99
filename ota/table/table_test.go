// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package table_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"fulmar/ota/table"
	"fulmar/schema/ota"
)

// TestTable: what the table says of each state and event, once more and by hand: a cell that
// is not here has no arrow.
func TestTable(t *testing.T) {
	t.Parallel()
	want := map[table.State]string{
		table.Offered:     "fits>admitted unfit>failed runs already>committed gone back>rolled-back",
		table.Admitted:    "clear>fetching take back>rolling-back blocked>scheduled unfit>failed",
		table.Scheduled:   "clear>fetching take back>rolling-back unfit>failed",
		table.Fetching:    "brought>staged no room>scheduled",
		table.Staged:      "placed>ready no room>scheduled",
		table.Ready:       "clear>switching unfit>failed runs already>committed beside>committed",
		table.Switching:   "in force>trial fell>rolled-back",
		table.Trial:       "healthy>confirming sick>rolling-back fell>rolled-back",
		table.Confirming:  "confirmed>committed fell>rolled-back gave up>rolling-back deadline>rolling-back loop>rolling-back",
		table.RollingBack: "gone back>rolled-back gave up>failed deadline>failed loop>failed",
	}
	for _, s := range table.States() {
		arrows := map[table.Event]table.State{}
		row := want[s]
		switch {
		case s.Before():
			row += " gave up>failed deadline>failed loop>failed abort>failed newer order>failed withdrawn>failed strange state>failed"
		case s == table.Switching || s == table.Trial:
			row += " gave up>rolling-back deadline>rolling-back loop>rolling-back abort>rolling-back withdrawn>rolling-back strange state>rolling-back"
		}
		for row != "" {
			var on, to string
			on, row, _ = strings.Cut(strings.TrimSpace(row), ">")
			to, row, _ = strings.Cut(row, " ")
			arrows[event(t, on)] = table.State(to)
		}
		for _, on := range table.Events() {
			to, ok := table.Next(s, on)
			if w, there := arrows[on]; ok != there || there && to != w {
				t.Errorf("%s on %s: %s, %v; wants %s, %v", s, on, to, ok, w, there)
			}
			if !ok && to != s {
				t.Errorf("%s on %s has no arrow and leads to %s", s, on, to)
			}
		}
	}
}

func event(t *testing.T, s string) table.Event {
	t.Helper()
	for _, e := range table.Events() {
		if string(e) == s {
			return e
		}
	}
	t.Fatalf("no event %q", s)
	return ""
}

// TestEnds: every state but an end is reached from the first, has bounds, ends by time, by its
// loop and by giving up, and those ways lead to an end in two steps at most.
func TestEnds(t *testing.T) {
	t.Parallel()
	reached := map[table.State]bool{table.Offered: true}
	for range table.States() {
		for _, tr := range table.Table() {
			if reached[tr.From] {
				reached[tr.To] = true
			}
		}
	}
	for _, s := range table.States() {
		if !reached[s] {
			t.Errorf("%s is never reached", s)
		}
		if !slices.Contains(ota.Words(), s.Word()) {
			t.Errorf("%s has the word %s, which is none of the wire", s, s.Word())
		}
		l := table.LimitOf(s)
		if s.Over() {
			if l != (table.Limit{}) || slices.ContainsFunc(table.Table(), func(tr table.Transition) bool { return tr.From == s }) {
				t.Errorf("%s is an end with ways out or bounds", s)
			}
			continue
		}
		if l.Passes < 2 || l.Tries < 1 || l.Why == "" || l.Deadline == 0 && !s.Before() {
			t.Errorf("%s has the bounds %+v", s, l)
		}
		for _, on := range []table.Event{table.Late, table.Looped, table.GaveUp} {
			to, _ := table.Next(s, on)
			if !to.Over() {
				to, _ = table.Next(to, on)
			}
			if !to.Over() {
				t.Errorf("%s on %s twice is %s", s, on, to)
			}
		}
		// What has not been in force never needs a way back, and what may be never just fails.
		if to, _ := table.Next(s, table.Late); s.Before() != (to == table.Failed) && s != table.RollingBack {
			t.Errorf("%s that is late is %s", s, to)
		}
	}
	seen := map[string]bool{}
	for _, tr := range table.Table() {
		if key := string(tr.From) + ">" + string(tr.On); seen[key] {
			t.Errorf("%s is there twice", key)
		} else {
			seen[key] = true
		}
	}
}

// TestDiagram: the pictures and bounds in docs/updates.md are those of the table.
func TestDiagram(t *testing.T) {
	t.Parallel()
	const page = "../../docs/updates.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	for _, part := range []struct{ begin, want, end string }{
		{"```mermaid\n", "```mermaid\n" + table.Diagram() + "```", "```"},
		{"| state | lasts at most |", table.Bounds(), "\n\n"},
	} {
		a, b := strings.Index(got, part.begin), -1
		if a >= 0 {
			if b = strings.Index(got[a+3:], part.end); b >= 0 {
				b += a + 3
				if part.end == "```" {
					b += 3
				}
			}
		}
		if a < 0 || b < 0 {
			t.Fatalf("docs/updates.md has no %q", part.begin)
		}
		if got[a:b] != part.want {
			t.Errorf("docs/updates.md is not the table's: FULMAR_UPDATE=1 go test ./ota/table writes it anew")
			got = got[:a] + part.want + got[b:]
		}
	}
	if os.Getenv("FULMAR_UPDATE") != "" && got != string(text) {
		if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
