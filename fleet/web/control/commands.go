// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"context"
	"html/template"
	"net/http"
	"slices"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

const (
	maxList   = 100 // commands in a list: the newest
	maxBoards = 200 // boards in one table; the API has all
)

// listView is the list of commands.
type listView struct {
	Headline  string
	Groups    []group
	Give      bool // this person may give one
	Conflicts int
}

// group is what waits for somebody, what is under way, what has ended.
type group struct {
	Title string
	Rows  []row
}

// row is one command in a list.
type row struct {
	ID, What, Who, Word, Tone, Target, Note, Reason string
	Bar                                             []segment
	BarWords                                        string
	Many                                            bool
	When                                            template.HTML
}

func (p *pages) list(ctx context.Context, s *web.Shown) error {
	by := s.Session.Caller()
	cs, err := p.cfg.Commands.List(ctx, by, "", maxList)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	conflicts, err := p.cfg.Twins.Conflicts(ctx, by)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	v := &listView{Headline: headline(cs), Give: s.May(rest.CommandsSend), Conflicts: len(conflicts), Groups: grouped(s.Sheet, cs)}
	s.Shape("verdict", v.Headline, v.Conflicts)
	s.Shape("rows", shapes(v.Groups)...)
	s.Title, s.Data = v.Headline, v
	return nil
}

// grouped puts what needs somebody first.
func grouped(s *live.Sheet, cs []rest.Command) (out []group) {
	groups := []group{{Title: "Needs somebody"}, {Title: "Under way"}, {Title: "Ended"}}
	for i := range cs {
		at := 1
		switch c := &cs[i]; {
		case c.Counts[rest.CommandWaiting] > 0, c.Counts[rest.CommandUnknown] > 0:
			at = 0
		case over(c):
			at = 2
		}
		groups[at].Rows = append(groups[at].Rows, newRow(s, &cs[i]))
	}
	return slices.DeleteFunc(groups, func(g group) bool { return len(g.Rows) == 0 })
}

func shapes(groups []group) (out []any) {
	for _, g := range groups {
		for _, r := range g.Rows {
			out = append(out, g.Title, r.ID, r.Word, r.Note, r.BarWords)
		}
	}
	return out
}

func newRow(s *live.Sheet, c *rest.Command) row {
	state := worst(c)
	r := row{ID: c.ID, What: given(c), Who: who(c), Word: stateWord(state), Tone: tone(state), Reason: c.Reason, When: s.Ago("c|"+c.ID, c.Given), Many: c.Total > 1}
	r.Bar = bar(c.Counts, c.Total)
	r.BarWords = spoken(r.Bar)
	r.Target = words.Plural(c.Total, "board", "boards")
	if len(c.Boards) == 1 && c.Total == 1 {
		r.Target, r.Note = c.Boards[0].Board, said(c.Name, c.Boards[0].Text)
	}
	return r
}

// who says who gave a command, and where.
func who(c *rest.Command) string {
	if c.Local {
		return c.Actor + ", on the board"
	}
	return person(c.Actor)
}

func headline(cs []rest.Command) string {
	n := map[string]int{}
	open := 0
	for i := range cs {
		if !over(&cs[i]) {
			open++
		}
		n[worst(&cs[i])]++
	}
	switch {
	case len(cs) == 0:
		return "No commands yet"
	case n[rest.CommandWaiting] > 0:
		return words.Plural(n[rest.CommandWaiting], "command waits", "commands wait") + " for a second person"
	case open > 0:
		return words.Plural(open, "command is", "commands are") + " under way"
	}
	return "No command is under way"
}

// oneView is one command.
type oneView struct {
	*rest.Command
	Title, What, Word, Tone, Say, Who string
	Valid                             template.HTML // until when a board may begin it; "" where it is over
	Bar                               []segment
	BarWords                          string
	Rows                              []boardRow
	More                              int
	Acts                              []act
	Note                              string
	Form                              *form.Form
}

// boardRow is one board's way through a command.
type boardRow struct {
	rest.CommandBoard
	Word, Tone, Say, Answer string
	Steps                   []step
}

// step is one moment in it.
type step struct {
	Word, Tone, At, After, Text string
}

// act is a button.
type act struct{ Do, Label, Means, Tone string }

func (p *pages) one(ctx context.Context, s *web.Shown) error { return p.build(ctx, s, form.New()) }

func (p *pages) build(ctx context.Context, s *web.Shown, f *form.Form) error {
	id := s.Value("id")
	if len(id) > maxID {
		return web.ErrNotFound
	}
	by := s.Session.Caller()
	c, err := p.cfg.Commands.Get(ctx, by, id)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	v := newOne(s.Sheet, c)
	v.Form = f
	v.act(by)
	s.Title, s.Data = v.Title, v
	return nil
}

func newOne(s *live.Sheet, c *rest.Command) *oneView {
	state := worst(c)
	v := &oneView{Command: c, What: given(c), Word: stateWord(state), Tone: tone(state), Who: who(c), Bar: bar(c.Counts, c.Total)}
	v.BarWords = spoken(v.Bar)
	v.Title = c.Name + ": " + v.BarWords
	if c.Total == 1 && len(c.Boards) == 1 {
		v.Title = c.Name + " on " + c.Boards[0].Board + ": " + v.Word
		v.Say = said(c.Name, c.Boards[0].Text)
	}
	if !over(c) && !c.Expires.IsZero() {
		v.Valid = s.Text("valid", "a board may begin it until "+words.Stamp(c.Expires.In(s.At.Location()), s.At))
	}
	rank := func(b rest.CommandBoard) int { return slices.Index(order(), b.State) }
	slices.SortStableFunc(c.Boards, func(a, b rest.CommandBoard) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Board, b.Board))
	})
	for i := range c.Boards[:min(len(c.Boards), maxBoards)] {
		v.Rows = append(v.Rows, newBoard(s, c, &c.Boards[i]))
	}
	v.More = c.Total - len(v.Rows)
	shape := []any{v.Title, c.Approval}
	for _, r := range v.Rows {
		shape = append(shape, r.Board, r.State, r.Text, r.Percent, len(r.Events))
	}
	s.Shape("verdict", v.Title, v.Say, c.Approval)
	s.Shape("acts", over(c), c.Approval)
	s.Shape("boards", shape...)
	return v
}

func newBoard(s *live.Sheet, c *rest.Command, b *rest.CommandBoard) boardRow {
	r := boardRow{CommandBoard: *b, Word: stateWord(b.State), Tone: tone(b.State), Answer: inWords(b.Value)}
	if c.Total > 1 { // of one it stands above
		r.Say = said(c.Name, b.Text)
	}
	if rest.CommandFinal(b.State) {
		r.Percent = 0
	}
	for i, e := range b.Events {
		x := step{Word: stateWord(e.State), Tone: tone(e.State), At: e.At.In(s.At.Location()).Format("15:04:05")}
		if e.Text != b.Text { // the last one is said already
			x.Text = said(c.Name, e.Text)
		}
		if i > 0 {
			x.After = took(e.At.Sub(b.Events[i-1].At))
		} else {
			x.At = words.Stamp(e.At.In(s.At.Location()), s.At)
			if e.State == rest.CommandQueued {
				x.Word = "given"
			}
		}
		r.Steps = append(r.Steps, x)
	}
	if r.Answer == "null" || r.Answer == "none" {
		r.Answer = ""
	}
	return r
}

// act gives the buttons of this person.
func (v *oneView) act(by access.Caller) {
	send, approve := by.May(rest.CommandsSend) == nil, by.May(rest.CommandsApprove) == nil
	if v.Local || over(v.Command) {
		return
	}
	if v.Counts[rest.CommandWaiting] > 0 {
		switch {
		case !approve:
			v.Note = "A second person has to agree: an operator, a releaser or an admin."
		case by.Author == v.Actor || "user/"+by.Author == v.Actor:
			v.Note = "A second person has to agree. Not you: you gave it."
		default:
			v.Acts = append(v.Acts,
				act{"approve", "Agree", v.Who + " gave it. With your yes it goes to the boards.", "go"},
				act{"refuse", "Refuse", "It goes to no board.", "act"})
		}
	}
	if send {
		v.Acts = append(v.Acts, act{"cancel", "Cancel it", "Boards that have not begun it never do. What has begun is asked to stop, and may have had its effect.", "act danger"})
	}
}

func (p *pages) act(ctx context.Context, s *web.Shown, r *http.Request) (string, error) {
	f, err := form.Read(r)
	if err != nil {
		return "", err
	}
	a := rest.CommandAction{Action: f.OneOf("do", "cancel", "approve", "refuse"), Reason: f.Line("why", maxWhy)}
	by := s.Session.Caller()
	need := rest.CommandsSend
	if a.Action != "cancel" {
		need = rest.CommandsApprove
	}
	if err := by.May(need); err != nil {
		return "", err
	}
	if f.OK() {
		if _, err = p.cfg.Commands.Act(ctx, by, s.Value("id"), a); err == nil {
			return to(s.Value("id")), nil
		}
		var ok bool
		if s.Code, ok = p.cfg.Problem.Refused(f, err, func(string) string { return "" }); !ok {
			return "", p.cfg.Problem.Gone(err)
		}
	}
	if err := p.build(ctx, s, f); err != nil {
		return "", err
	}
	return "", web.ErrAgain
}
