// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"encoding/hex"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// Panel is a board's panel of trust.
type Panel struct {
	Tone     string // of the headline: the class and icon of a state
	Word     string // the headline in a word or two
	Headline string
	When     template.HTML // age of the proof, "" where there is none
	Intro    string        // what has to be said before, "" nothing
	Means    string        // what is proven
	Not      string        // and what is not
	Trouble  []string      // sentences about what is wrong
	Facts    []Fact
	Running  []Running // as the newest proof told
	Asks     []Ask     // boards that ask to join under this name
	Revoked  bool
	Since    string // of the revocation
}

// Fact is one line of what is known.
type Fact struct {
	Name, Text string
	Hash       string // shown after the text, "" none
}

// Running is one program or model and its SHA-256.
type Running struct{ Name, Hash string }

// Build writes the panel. The live texts go into the sheet.
func Build(s *live.Sheet, t *Trust, asks []Request) *Panel {
	if t == nil {
		return nil
	}
	p := &Panel{Asks: Asks(s, asks)}
	p.level(s, t)
	p.trouble(s, t)
	p.facts(s, t)
	if !t.Revoked.IsZero() {
		p.Revoked, p.Since = true, stamp(s, t.Revoked)
	}
	s.Shape("trust", p.Tone, p.Headline, p.Intro, p.Means, p.Not, p.Trouble, p.Facts, p.Running)
	return p
}

// Mark is what the head of a board's page shows of the panel; "" for none.
func (p *Panel) Mark() string {
	if p == nil {
		return ""
	}
	return p.Tone + " " + p.Word
}

func stamp(s *live.Sheet, t time.Time) string { return words.Stamp(t.In(s.At.Location()), s.At) }

// level says how much is proven.
func (p *Panel) level(s *live.Sheet, t *Trust) {
	const same = "It is this board and no copy."
	switch {
	case !t.InTPM():
		p.Tone, p.Word, p.Headline = "degraded", "key in a file", "Not protected: its key is a file"
		p.Intro = "It has no TPM. Whoever can read its disk can copy its key and speak in its name."
		p.Means = "Nothing."
		p.Not = "That it is this board and no copy, and what it runs: that is its own word."
		return
	case t.Good.IsZero():
		p.Tone, p.Word, p.Headline = "never", Claimed, "Claimed: what it runs is its own word"
		p.Means = "Its key is in its TPM and cannot be copied."
		p.Not = "What it runs: its TPM has not signed that yet."
		return
	case t.Level == Measured:
		p.Tone, p.Word, p.Headline = "healthy", Measured, "Measured: its TPM signed what it started and what it says it runs"
		p.Means = "Its boot wrote into its TPM what it started, and the TPM that the board enrolled with signed that together with its report, for a question that was asked once. " + same
		p.Not = "That what it started is good: the values of the boot are held against its own earlier ones, not against a list. They are worth as much as the firmware that writes them; where it writes none, a program with all rights can write some."
	default:
		p.Tone, p.Word, p.Headline = "healthy", Bound, "Bound: its TPM signed what it says it runs"
		p.Means = "The TPM that the board enrolled with signed its report, for a question that was asked once. " + same
		p.Not = "That the report is true: nothing measured the boot, so a board that was broken into can have its TPM sign what is false."
	}
	if t.Kind == "virtual" {
		p.Means = strings.TrimSuffix(p.Means, " "+same)
		p.Not += " Nor that it is no copy: who runs the machine of a virtual TPM can copy that."
	}
	p.When = s.Ago("trust|good", t.Good)
	if s.At.Sub(t.Good) > staleAfter {
		p.Tone, p.Word, p.Headline = "never", p.Word+", not lately", "Old: "+words.Lower(p.Headline)+", but not lately"
	}
}

// trouble says what is wrong; the worst gives the headline.
func (p *Panel) trouble(s *live.Sheet, t *Trust) {
	if s.At.After(t.Until) && !t.Until.IsZero() {
		p.Trouble = append(p.Trouble, "Its certificate has ended. It gets the next one by itself as soon as it reaches the fleet.")
	}
	if !t.Silent.IsZero() {
		p.Tone, p.Word, p.Headline = "degraded", "proof overdue", "It was asked what it runs and has not answered"
		p.When = s.Ago("trust|good", t.Silent)
		p.Trouble = append(p.Trouble, "Its TPM has not signed since. It may hang, or the board went away; its log tells.")
	}
	if t.Why != "" {
		p.Tone, p.Word, p.Headline = "failing", "proof not believed", "Its newest proof was not believed"
		p.When = s.Ago("trust|good", t.RefusedAt)
		before := "None was ever believed."
		if !t.Good.IsZero() {
			before = "What stands below is of the last one that was believed, of " + stamp(s, t.Good) + "."
		}
		p.Trouble = append(p.Trouble, t.Why+" "+before)
	}
	if !t.Clones.IsZero() {
		p.Tone, p.Word, p.Headline = "failing", "two boards", "Two boards use this identity"
		p.When = s.Ago("trust|good", t.Clones)
		p.Trouble = append(p.Trouble, "They take turns: a disk was copied with the key on it, and nobody can tell which of them sent what. Shut this board out, then enrol each anew.")
	}
}

func (p *Panel) facts(s *live.Sheet, t *Trust) {
	add := func(name, text, hash string) { p.Facts = append(p.Facts, Fact{name, text, hash}) }
	if t.InTPM() {
		add("Private key", "in the TPM, cannot be copied", "")
		add("TPM", Chip(t.Kind, t.Maker, t.Firmware), "")
		add("Which TPM", which(t.How, t.Note), "")
		add("Fingerprint of the TPM", "", t.Fingerprint)
	} else {
		add("Private key", "in a file on the board, can be copied", "")
		add("Fingerprint of the key", "", t.Fingerprint)
	}
	if !t.Good.IsZero() {
		r := new(schema.AttestReport)
		if schema.Decode(t.Report, r) == nil {
			p.running(r)
		}
		add("Measured boot", map[bool]string{true: "yes", false: "no, nothing wrote into its TPM what it started"}[t.Level == Measured], "")
		add("Old state put back", rollback(r.Rollback), "")
		add("Boots", words.Count(uint64(t.Boots))+" since its first proof, as its TPM counts them", "")
		add("The same since", stamp(s, t.Since)+": program, release and boot", "")
	}
	if t.Refused > 0 {
		add("Proofs not believed", words.Count(t.Refused)+", the newest at "+stamp(s, t.RefusedAt), "")
	}
	add("Joined", stamp(s, t.Enrolled), "")
	if !t.Until.IsZero() {
		add("Certificate until", stamp(s, t.Until)+", renewed by itself before", "")
	}
}

func (p *Panel) running(r *schema.AttestReport) {
	p.Running = append(p.Running, Running{"fulmard " + r.Release, hex.EncodeToString(r.Program)})
	for _, m := range slices.Sorted(maps.Keys(r.Models)) {
		p.Running = append(p.Running, Running{m, hex.EncodeToString(r.Models[m])})
	}
}

// Chip says what a TPM is, in the board's own word.
func Chip(kind, maker, firmware string) string {
	text := map[string]string{
		"discrete": "a chip of its own", "firmware": "in the firmware of the processor",
		"virtual": "virtual: whoever runs the machine has its secrets",
	}[kind]
	if text == "" {
		text = "of unknown kind"
	}
	if maker != "" {
		text += ", " + maker
		if firmware != "" {
			text += " " + firmware
		}
	}
	return text + " (the board's word)"
}

func which(how, note string) string {
	text := map[string]string{
		schema.TrustMaker:    "its maker's certificate proves it",
		schema.TrustListed:   "it is on the fleet's list",
		schema.TrustFirstUse: "taken as it was when the board first joined",
	}[how]
	if note != "" {
		text += ". " + words.Sentence(note)
	}
	return text
}

func rollback(word string) string {
	switch word {
	case "yes":
		return "the TPM resists it (the board's word)"
	case "no":
		return "the TPM does not resist it; the fleet sees it by the TPM's clock"
	}
	return "not known whether the TPM resists it; the fleet sees it by the TPM's clock"
}

// Fleet says in a sentence how the boards of a fleet are known; "" where there is none.
func Fleet(ts []*Trust) string {
	var boards, tpm, bound, measured int
	for _, t := range ts {
		if t == nil || !t.Revoked.IsZero() {
			continue
		}
		boards++
		if !t.InTPM() {
			continue
		}
		tpm++
		switch t.Level {
		case Measured:
			measured++
		case Bound:
			bound++
		}
	}
	if boards == 0 {
		return ""
	}
	files := boards - tpm
	all := words.Plural(files, "board has its key in a file that can be copied", "boards have their keys in files that can be copied")
	if tpm == 0 {
		return all + "; none has a TPM."
	}
	s := words.Plural(tpm, "board has its key in a TPM", "boards have their keys in TPMs") + "; proved what runs: " +
		words.Count(uint64(bound+measured)) + ", with a measured boot: " + words.Count(uint64(measured)) + "."
	if files > 0 {
		s += " " + all + "."
	}
	return s
}
