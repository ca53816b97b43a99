// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"html/template"
	"strconv"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// Ask is a board that asks to join, ready to be shown.
type Ask struct {
	Request
	Tone     string
	Headline string
	Proved   string // what its TPM proved
	Chip     string // "" without one
	About    []words.Fact
	First    template.HTML
	Last     template.HTML
	Advice   string // what to look at before, and what follows
	Yes      string // label of the button; "" where it cannot be approved
	No       string // label of the other button; "" where it is refused already
	Decided  string // what was decided, a sentence; "" nothing yet
}

// Asks prepares the boards that ask to join: those undecided first, at most Shown.
func Asks(s *live.Sheet, rs []Request) (out []Ask) {
	for _, undecided := range []bool{true, false} {
		for i := range rs {
			if (rs[i].Decision == "") == undecided {
				out = append(out, ask(s, &rs[i]))
			}
		}
	}
	return out[:min(len(out), Shown)]
}

func ask(s *live.Sheet, r *Request) Ask {
	k := "ask|" + strconv.FormatInt(r.ID, 10) + "|"
	a := Ask{
		Request: *r, Tone: "never", Proved: proved(r.How), About: words.Facts(r.Facts, "", ""),
		First: s.Ago(k+"first", r.First), Last: s.Ago(k+"last", r.Last), No: "Refuse",
	}
	if r.How != schema.TrustSoftware {
		a.Chip = Chip(r.Kind, r.Maker, r.Firmware)
	}
	only := ""
	switch r.Why {
	case whyAK:
		a.Tone, a.Headline, a.Yes = "degraded", r.Board+" asks again: the same TPM, cleared", "It is the same board, let it in"
		only = "you cleared its TPM or gave it a new disk"
	case whyEK:
		a.Tone, a.Headline, a.Yes = "failing", r.Board+" asks with another TPM", "The board was swapped, let it in"
		only = "you swapped the board or its TPM"
	case whyKey:
		a.Tone, a.Headline, a.Yes = "failing", r.Board+" asks with another key", "Its disk is new, let it in"
		only = "you gave the board a new disk"
	case whyToSoftware:
		a.Tone, a.Headline, a.Yes = "failing", r.Board+" asks without the TPM it had", "Take it without a TPM"
		only = "its TPM is gone for good; else switch that on again"
	case whyToTPM:
		a.Tone, a.Headline, a.Yes = "degraded", r.Board+" asks with a TPM, and had none", "It has a TPM now, let it in"
		only = "you switched its TPM on"
	case whyElsewhere:
		a.Tone, a.Headline = "failing", r.Board+" asks with the TPM or key of "+r.Other
		a.Advice = "One TPM is one board. If " + r.Other + " is to have this new name, forget " + r.Other + " on its page first; then this one may ask again."
	default:
		a.Headline, a.Yes, a.Say = r.Board+" asks to join", "Let it in", ""
	}
	if a.Yes != "" {
		a.Advice = "Let it in only if the board's own log shows the same fingerprint"
		if only != "" {
			a.Advice += ", and " + only + ". The board that has this name now is cut off then"
		}
		a.Advice += "."
	}
	switch r.Decision {
	case "approved":
		a.Tone, a.Yes, a.No = "healthy", "", "Take it back"
		a.Advice = ""
		a.Decided = "Approved by " + r.By + ", " + stamp(s, r.DecidedAt) + ". It joins when it asks again, which it does by itself."
	case "refused":
		a.Tone, a.No = "unreachable", ""
		a.Decided = "Refused by " + r.By + ", " + stamp(s, r.DecidedAt) + ". It is told so whenever it asks."
	}
	return a
}

func proved(how string) string {
	switch how {
	case schema.TrustMaker:
		return "It proved that its key is in a TPM and cannot be copied, and its maker's certificate proves which TPM."
	case schema.TrustListed:
		return "It proved that its key is in a TPM and cannot be copied, and that TPM is on the fleet's list."
	case schema.TrustFirstUse:
		return "It proved that its key is in a TPM and cannot be copied. Which TPM that is, the fingerprint alone tells."
	}
	return "It proved nothing: it has no TPM, its key is a file that can be copied. Which board it is, the fingerprint alone tells."
}

// Shown bounds the boards on one page that ask to join.
const Shown = 24

// Waiting counts those that a person has to decide.
func Waiting(rs []Request) (n int) {
	for i := range rs {
		if rs[i].Decision == "" {
			n++
		}
	}
	return n
}

// Shape is what parts that show boards asking are known by.
func Shape(as []Ask) []string {
	out := make([]string, len(as))
	for i := range as {
		a := &as[i]
		out[i] = strconv.FormatInt(a.ID, 10) + a.Why + a.Say + a.How + a.From + a.Decision + a.Decided
	}
	return out
}
