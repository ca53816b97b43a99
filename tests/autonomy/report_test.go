// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
)

// deed is one thing that was done, and what there is of it afterwards.
type deed struct {
	what, by, when string
	effect         string // where it happened
	fleet          string // what the fleet has of it
	wrong          string // how the two differ from what they have to be; "" for not at all
}

// report is what a partition came to.
type report struct {
	title string
	deeds []deed
}

func (r *report) add(d deed) { r.deeds = append(r.deeds, d) }

// held adds a deed that has to be as it is said.
func (r *report) held(ok bool, d deed) {
	if !ok {
		d.wrong = "DEVIATES"
	}
	r.add(d)
}

func (r *report) deviation() (n int) {
	for _, d := range r.deeds {
		if d.wrong != "" {
			n++
		}
	}
	return n
}

func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", r.title)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DONE\tBY\tAFTER\tEFFECT\tAT THE FLEET\t")
	for _, d := range r.deeds {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.what, d.by, d.when, d.effect, d.fleet, d.wrong)
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "deviation: %d of %d\n", r.deviation(), len(r.deeds))
	return b.String()
}

// judge prints the report and fails where anything in it deviates.
func (r *report) judge(t *testing.T) {
	t.Helper()
	t.Log(r)
	if n := r.deviation(); n != 0 {
		t.Errorf("deviation: %d, wants 0", n)
	}
}
