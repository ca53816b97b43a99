// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/verdict"
	"fulmar/schema"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func report(t *testing.T) []byte {
	t.Helper()
	b, err := schema.Encode(&schema.AttestReport{
		V: schema.Version, Release: "1.2.0", Program: make([]byte, 32), Kind: "firmware", Rollback: "no",
		Models: map[string][]byte{"b": make([]byte, 32), "a": make([]byte, 32)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// proven is a board with a TPM whose newest proof is good.
func proven(t *testing.T, level string) *Trust {
	return &Trust{
		How: schema.TrustFirstUse, Fingerprint: "0011223344556677", Enrolled: now.Add(-time.Hour), Until: now.Add(time.Hour), Kind: "firmware", Maker: "MSFT",
		Level: level, Good: now.Add(-time.Minute), Since: now.Add(-time.Hour), Boots: 3, Report: report(t),
	}
}

// text is all that a panel says.
func text(p *Panel) string {
	return fmt.Sprint(p.Tone, "|", p.Word, "|", p.Headline, "|", p.Intro, "|", p.Means, "|", p.Not, "|", p.Trouble, p.Facts, p.Running)
}

// TestPanel: each level says what it proves and what it does not, and nothing that
// another level would prove.
func TestPanel(t *testing.T) {
	t.Parallel()
	with := func(level string, change func(*Trust)) *Trust {
		x := proven(t, level)
		if change != nil {
			change(x)
		}
		return x
	}
	for name, c := range map[string]struct {
		t          *Trust
		says, lies []string
	}{
		"software": {
			&Trust{How: schema.TrustSoftware, Fingerprint: "aa", Enrolled: now},
			[]string{"degraded|key in a file|Not protected", "can copy its key", "in a file on the board, can be copied"},
			[]string{"in the TPM, cannot", "signed its report", "Measured boot", "Boots"},
		},
		"no proof yet": {
			with(Claimed, func(x *Trust) { x.Good = time.Time{} }),
			[]string{"never|claimed|Claimed", "cannot be copied", "has not signed that yet"},
			[]string{"no copy", "Measured boot", "fulmard 1.2.0"},
		},
		"bound": {
			with(Bound, nil),
			[]string{"healthy|bound|Bound", "It is this board and no copy", "nothing measured the boot", "Measured boot no, nothing wrote", "3 since its first proof", "does not resist it", "{fulmard 1.2.0 0000", "{a 0000", "taken as it was when the board first joined", "MSFT (the board's word)"},
			[]string{"what it started. It is", "Measured boot yes"},
		},
		"measured": {
			with(Measured, nil),
			[]string{"healthy|measured|Measured", "wrote into its TPM what it started", "not against a list", "Measured boot yes"},
			[]string{"nothing measured the boot"},
		},
		"virtual":        {with(Bound, func(x *Trust) { x.Kind = "virtual" }), []string{"can copy that", "virtual: whoever runs the machine has its secrets"}, []string{"It is this board and no copy"}},
		"old":            {with(Bound, func(x *Trust) { x.Good = now.Add(-49 * time.Hour) }), []string{"never|bound, not lately|Old: bound"}, []string{"healthy|"}},
		"maker":          {with(Bound, func(x *Trust) { x.How, x.Note = schema.TrustMaker, "somebody signed it." }), []string{"its maker's certificate proves it. Somebody signed it."}, []string{"taken as it was"}},
		"listed":         {with(Bound, func(x *Trust) { x.How = schema.TrustListed }), []string{"on the fleet's list"}, []string{"taken as it was"}},
		"not believed":   {with(Bound, func(x *Trust) { x.Why, x.RefusedAt, x.Refused = "It lied.", now, 4 }), []string{"failing|proof not believed|", "It lied. What stands below", "Proofs not believed 4"}, []string{"healthy|"}},
		"never believed": {with(Claimed, func(x *Trust) { x.Why, x.Good = "It lied.", time.Time{} }), []string{"failing|", "None was ever believed"}, []string{"What stands below"}},
		"overdue":        {with(Bound, func(x *Trust) { x.Silent = now }), []string{"degraded|proof overdue|"}, []string{"healthy|"}},
		"two":            {with(Bound, func(x *Trust) { x.Clones, x.Silent, x.Why = now, now, "It lied." }), []string{"failing|two boards|Two boards", "It lied."}, []string{"healthy|"}},
		"ended":          {with(Bound, func(x *Trust) { x.Until = now.Add(-time.Hour) }), []string{"certificate has ended"}, nil},
		"broken report":  {with(Bound, func(x *Trust) { x.Report = []byte{1} }), []string{"healthy|bound|"}, []string{"fulmard"}},
	} {
		got := text(Build(live.NewSheet(now), c.t, nil))
		for _, want := range c.says {
			if !strings.Contains(got, want) {
				t.Errorf("%s: does not say %q:\n%s", name, want, got)
			}
		}
		for _, lie := range c.lies {
			if strings.Contains(got, lie) {
				t.Errorf("%s: says %q:\n%s", name, lie, got)
			}
		}
	}
	if Build(live.NewSheet(now), nil, nil) != nil || (*Panel)(nil).Mark() != "" {
		t.Error("a board of which nothing is known has a panel")
	}
}

// TestLive: what changes on the panel changes its shape, so that the page follows.
func TestLive(t *testing.T) {
	t.Parallel()
	shape := func(x *Trust) string {
		s := live.NewSheet(now)
		Build(s, x, nil)
		return s.Hash["trust"]
	}
	seen := map[string]string{shape(proven(t, Bound)): "bound"}
	for name, change := range map[string]func(*Trust){
		"level": func(x *Trust) { x.Level = Measured }, "boots": func(x *Trust) { x.Boots++ }, "since": func(x *Trust) { x.Since = now }, "report": func(x *Trust) { x.Report = nil },
		"why": func(x *Trust) { x.Why = "It lied." }, "silent": func(x *Trust) { x.Silent = now }, "clones": func(x *Trust) { x.Clones = now }, "revoked": func(x *Trust) { x.Revoked = now },
		"until": func(x *Trust) { x.Until = now.Add(48 * time.Hour) }, "how": func(x *Trust) { x.How = schema.TrustMaker }, "note": func(x *Trust) { x.Note = "x" },
	} {
		x := proven(t, Bound)
		change(x)
		h := shape(x)
		if was, ok := seen[h]; ok && name != "revoked" { // that is in the part beside it
			t.Errorf("%s looks like %s", name, was)
		}
		seen[h] = name
	}
}

func TestCauses(t *testing.T) {
	t.Parallel()
	var none *Trust
	if c, _ := none.Twins(); c != "" {
		t.Error(c)
	}
	if c, _ := none.Away(now); c != "" {
		t.Error(c)
	}
	if s, c, _ := none.Here(); s != "" || c != "" {
		t.Error(s, c)
	}
	x := proven(t, Bound)
	if c, _ := x.Away(now); c != "" {
		t.Error(c)
	}
	if s, c, _ := x.Here(); s != "" {
		t.Error(s, c)
	}
	if c, at := x.Away(x.Until.Add(1)); !strings.Contains(c, "certificate has ended") || !at.Equal(x.Until) {
		t.Error(c, at)
	}
	for why, want := range map[string]string{
		whyAK: "its TPM was cleared", whyEK: "another TPM", whyKey: "another key", whyToSoftware: "its TPM is missing", whyToTPM: "had none",
		whyNew: "", whyElsewhere: "",
	} {
		x.Asks, x.AsksAt = why, now
		if c, _ := x.Away(now); !strings.Contains(c, want) || (want == "") != (c == "") {
			t.Errorf("%s: %q", why, c)
		}
	}
	x.Silent = now
	if s, c, at := x.Here(); s != verdict.Degraded || c == "" || !at.Equal(now) {
		t.Error(s, c, at)
	}
	x.Why, x.RefusedAt = "It lied.", now.Add(-1)
	if s, _, at := x.Here(); s != verdict.Failing || !at.Equal(x.RefusedAt) {
		t.Error(s, at)
	}
	x.Clones = now
	if c, _ := x.Twins(); !strings.Contains(c, "two boards") {
		t.Error(c)
	}
}

// TestAsks: each request is worded as the decision that it is.
func TestAsks(t *testing.T) {
	t.Parallel()
	for why, want := range map[string]string{
		whyNew: "b asks to join", whyAK: "b asks again: the same TPM, cleared", whyEK: "b asks with another TPM", whyKey: "b asks with another key",
		whyToSoftware: "b asks without the TPM it had", whyToTPM: "b asks with a TPM, and had none", whyElsewhere: "b asks with the TPM or key of c",
	} {
		a := Asks(live.NewSheet(now), []Request{{ID: 1, Board: "b", Other: "c", Why: why, How: schema.TrustFirstUse, First: now, Last: now}})[0]
		if a.Headline != want || (a.Yes == "") != (why == whyElsewhere) || a.No != "Refuse" || a.Advice == "" || a.Chip == "" {
			t.Errorf("%s: %+v", why, a)
		}
		if why != whyNew && why != whyElsewhere && !strings.Contains(a.Advice, "is cut off then") {
			t.Errorf("%s: does not say what follows: %s", why, a.Advice)
		}
	}
	rs := []Request{{ID: 1, Decision: "refused", By: "admin", How: schema.TrustSoftware}, {ID: 2}, {ID: 3, Decision: "approved", By: "admin"}}
	as := Asks(live.NewSheet(now), rs)
	if as[0].ID != 2 || Waiting(rs) != 1 {
		t.Errorf("undecided first: %+v", as)
	}
	if a := as[1]; a.Yes == "" || a.No != "" || !strings.HasPrefix(a.Decided, "Refused by admin") || !strings.HasPrefix(a.Proved, "It proved nothing") || a.Chip != "" {
		t.Errorf("refused: %+v", a)
	}
	if a := as[2]; a.Yes != "" || a.No == "" || !strings.HasPrefix(a.Decided, "Approved by admin") {
		t.Errorf("approved: %+v", a)
	}
	if n := len(Asks(live.NewSheet(now), make([]Request, 1000))); n != Shown {
		t.Errorf("%d shown", n)
	}
	if a, b := Shape(as), Shape(as[:2]); len(a) == len(b) {
		t.Error("one less looks the same")
	}
}

func TestFleet(t *testing.T) {
	t.Parallel()
	soft, gone := &Trust{How: schema.TrustSoftware}, proven(t, Bound)
	gone.Revoked = now
	for _, c := range []struct {
		ts   []*Trust
		want string
	}{
		{nil, ""},
		{[]*Trust{nil, gone}, ""},
		{[]*Trust{soft}, "1 board has its key in a file that can be copied; none has a TPM."},
		{[]*Trust{proven(t, Bound), proven(t, Measured), proven(t, Claimed)}, "3 boards have their keys in TPMs; proved what runs: 2, with a measured boot: 1."},
		{[]*Trust{proven(t, Bound), soft, gone}, "1 board has its key in a TPM; proved what runs: 1, with a measured boot: 0. 1 board has its key in a file that can be copied."},
	} {
		if got := strings.ReplaceAll(Fleet(c.ts), "\u00a0", " "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
