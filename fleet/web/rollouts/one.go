// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"cmp"
	"fmt"
	"html/template"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"fulmar/fleet/web/live"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

const (
	maxBoards = 50 // in one table: a screen or two
	maxSteps  = 40 // of the history shown; the API has more
)

// oneView is one rollout.
type oneView struct {
	*rest.Rollout
	Name, Title, Word, Tone, Say string
	Left, Until, Then            template.HTML // countdown, clock and what follows; "" where it is over
	Finish                       string        // when it is done, about
	Believed                     string        // how far the words of good boards are, in words
	Verdict                      *verdictView
	Undone                       string // what was taken back, a sentence; "" nothing
	Waves                        []waveView
	Boards                       *boardsView
	Unreached                    *boardsView // never heard from: neither good nor bad
	Steps                        []step
	Rest                         int // steps not shown
	Past                         []attempt
	Plan                         []words.Fact
	Acts                         *acts // of this person; nil for one who only looks
	Mine                         bool  // this person planned it
}

// verdictView is what the gate says.
type verdictView struct {
	*rest.Verdict
	Word, Tone, Inequality, Say, At string
	Which                           string // wave
	Picture                         *picture
	Rows                            []guardRow
}

// guardRow is one guard metric against the boards that have not got the release.
type guardRow struct {
	rest.GuardVerdict
	Word, Tone, Here, There, Bound string
}

// waveView is one wave.
type waveView struct {
	*rest.Wave
	Title, Size, Word, Tone, Say, When string
	Bar                                []segment
	BarWords                           string
	Left                               template.HTML // of the board that decides last
	Link                               string        // to its boards
	Current                            bool
}

// boardsView is a table of boards.
type boardsView struct {
	Title, Empty string
	Rows         []boardRow
	Total        int
	Wave, State  string
	Older        string // link
	States       []segment
}

// boardRow is one board.
type boardRow struct {
	rest.RolloutBoard
	Word, Tone, Doing string
	Left              template.HTML
	Ends              string
}

// step is one thing that happened; attempt one try before this one.
type (
	step    struct{ When, Who, Say string }
	attempt struct{ When, Word, Tone, Say string }
)

// one builds the view of a rollout. q filters its table of boards.
func one(s *live.Sheet, r *rest.Rollout, boards []rest.RolloutBoard, q url.Values) *oneView {
	v := &oneView{Rollout: r, Name: name(r), Title: title(r), Word: stateWord(r.State), Tone: tone(r.State), Say: stop(words.Sentence(r.Sentence)), Plan: plan(&r.Spec)}
	v.Left, v.Until, v.Then = "", "", ""
	if !r.Over && r.Deadline != nil {
		v.Left = s.Text("left", left(r.Deadline, s.At))
		v.Until = s.Text("until", soon(r.Deadline.In(s.At.Location()), s.At))
		v.Then = s.Text("then", stop(r.Then))
	}
	if r.Done != nil && !r.Over {
		v.Finish = soon(r.Done.In(s.At.Location()), s.At)
	}
	v.Believed = believed(r.Levels)
	v.Verdict = newVerdict(s, r)
	v.Undone = undone(r.Counts)
	current := 0
	for i := range r.Waves {
		v.Waves = append(v.Waves, newWave(s, r, i, boards))
		if v.Waves[i].Current || r.State != done && r.Waves[i].Began != nil {
			current = r.Waves[i].N // of one that ended badly: the wave that it ended in
		}
	}
	var gone []rest.RolloutBoard
	for i := range boards {
		if boards[i].State == "unreached" {
			gone = append(gone, boards[i])
		}
	}
	if len(gone) > 0 {
		v.Unreached = &boardsView{Title: "Never reached", Total: len(gone)}
		for i := range gone[:min(len(gone), maxBoards)] {
			v.Unreached.Rows = append(v.Unreached.Rows, newBoard(s, &gone[i]))
		}
	}
	v.Boards = table(s, r, boards, q, current)
	v.past(s)
	v.shapes(s)
	return v
}

// believed tells how far the words of good boards are believed: those of chips first.
func believed(levels map[string]int) string {
	var out []string
	for _, l := range []string{"measured", "bound", "claimed"} {
		if n := levels[l]; n > 0 {
			out = append(out, strconv.Itoa(n)+" "+l)
		}
	}
	return strings.Join(out, ", ")
}

// shapes marks the parts, so that what changed is asked for again.
func (v *oneView) shapes(s *live.Sheet) {
	r := v.Rollout
	s.Shape("verdict", v.Title, v.Say, r.Do, v.Finish, v.Believed, r.Author, r.Starter, r.Approver, v.Left == "")
	var gate, waves []any
	if g := v.Verdict; g != nil {
		gate = append(gate, g.Word, g.Inequality, g.Say, g.At, g.Rows, g.Hook, *g.Verdict)
	}
	for i := range v.Waves {
		w := &v.Waves[i]
		waves = append(waves, w.Title, w.Word, w.Say, w.When, w.BarWords, w.Current, w.Halts)
	}
	s.Shape("gate", gate...)
	s.Shape("fails", r.Reasons, r.Common)
	s.Shape("undone", v.Undone)
	s.Shape("acts", r.State, r.Version, r.Actions)
	s.Shape("waves", waves...)
	s.Shape("past", v.Steps, v.Past)
	gone := []string{}
	if v.Unreached != nil {
		for _, b := range v.Unreached.Rows {
			gone = append(gone, b.Board)
		}
	}
	s.Shape("unreached", gone, r.LeftOut)
	shape := []any{v.Boards.Total, v.Boards.Older}
	for _, b := range v.Boards.Rows {
		shape = append(shape, b.Board, b.Word, b.Doing, b.Reason, b.Ends, b.Release)
	}
	s.Shape("boards", shape...)
}

func newVerdict(s *live.Sheet, r *rest.Rollout) *verdictView {
	if r.Verdict == nil {
		return nil
	}
	g := &verdictView{Verdict: r.Verdict, Inequality: inequality(r.Verdict), Say: stop(words.Sentence(r.Verdict.Sentence)), At: stamp(s, r.Verdict.At), Picture: draw(r.Verdict)}
	if r.Verdict.At.IsZero() { // of a wave that is under way: read just now
		g.At = "now"
	}
	if strings.Contains(strings.ToLower(r.Sentence), strings.ToLower(r.Verdict.Sentence)) {
		g.Say = "" // the headline has said it
	}
	g.Word, g.Tone = outcome(r.Verdict.Outcome)
	g.Which = "The gate of wave " + strconv.Itoa(r.Wave)
	if r.Wave == 0 {
		g.Which = "The gate of the shadow phase"
	}
	for _, x := range r.Verdict.Guards {
		row := guardRow{GuardVerdict: x, Here: figure(x.Value), There: figure(x.Cohort), Bound: figure(x.Limit)}
		row.Word, row.Tone = map[string]string{"good": "no worse", "bad": "worse"}[x.Outcome], map[string]string{"good": "healthy", "bad": "failing"}[x.Outcome]
		row.Word, row.Tone = cmp.Or(row.Word, "too few to tell"), cmp.Or(row.Tone, "never")
		if x.Boards == 0 {
			row.Here = "none sent"
		}
		if x.Others == 0 {
			row.There = "none left"
		}
		g.Rows = append(g.Rows, row)
	}
	return g
}

// figure writes a metric's value with the digits that matter.
func figure(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// undone says what has been taken back.
func undone(n map[string]int) string {
	if n["undone"]+n["undoing"]+n["stuck"] == 0 {
		return ""
	}
	s := words.Plural(n["undone"], "board runs", "boards run") + " what it ran before"
	if n["undone"] != 1 {
		s = words.Plural(n["undone"], "board runs", "boards run") + " what they ran before"
	}
	if k := n["undoing"]; k > 0 {
		s += "; " + words.Plural(k, "is on its way back", "are on their way back")
	}
	if k := n["stuck"]; k > 0 {
		s += "; " + words.Plural(k, "has not confirmed and needs you", "have not confirmed and need you")
	}
	return s + "."
}

func newWave(s *live.Sheet, r *rest.Rollout, i int, boards []rest.RolloutBoard) waveView {
	w := &r.Waves[i]
	v := waveView{Wave: w, Title: "Wave " + strconv.Itoa(w.N), Bar: bar(w.Counts, w.Boards), Link: "/rollouts/" + url.PathEscape(r.ID) + "?" + url.Values{"wave": {strconv.Itoa(w.N)}}.Encode() + "#boards"}
	if w.Shadow {
		v.Title = "Shadow phase"
	}
	v.BarWords = spoken(v.Bar)
	v.Size = words.Plural(w.Boards, "board", "boards")
	if w.Sites > 0 {
		v.Size += " over " + words.Plural(w.Sites, "site", "sites")
	}
	v.Word, v.Tone = "not yet", "never"
	v.Current = w.Began != nil && w.Ended == nil && !r.Over
	switch {
	case w.Ended != nil && w.Verdict != nil:
		v.Word, v.Tone = outcome(w.Verdict.Outcome)
		v.When = stamp(s, *w.Began) + " to " + stamp(s, *w.Ended)
		v.Say = stop(words.Sentence(w.Verdict.Sentence))
	case w.Began != nil:
		v.When = "since " + stamp(s, *w.Began)
		if v.Word, v.Tone = "running", "run"; r.Over {
			v.Word, v.Tone = "stopped", "unreachable"
		}
		v.Say = remaining(s, w, boards)
		if t := last(boards, w.N); v.Current && t != nil {
			v.Left = s.Text("wave|"+strconv.Itoa(w.N), left(t, s.At))
		}
	}
	return v
}

// remaining says what a wave waits for: "39 left: 31 installing, 6 in trial (the last one
// decides by 14:40), 2 never reached (counted apart)".
func remaining(s *live.Sheet, w *rest.Wave, boards []rest.RolloutBoard) string {
	open := 0
	var parts []segment
	for _, g := range bar(w.Counts, w.Boards) {
		switch g.State {
		case "waiting", "assigned", "installing", "trial", "undoing":
			open += g.Count
			parts = append(parts, g)
		}
	}
	if open == 0 {
		return "All its boards have ended."
	}
	out := words.Count(uint64(open)) + " left: "
	for i, g := range parts {
		if i > 0 {
			out += ", "
		}
		out += words.Count(uint64(g.Count)) + " " + g.Word
		if t := last(boards, w.N, g.State); t != nil && g.State == "trial" {
			out += " (the last one decides by " + soon(t.In(s.At.Location()), s.At) + ")"
		}
	}
	if n := w.Counts["unreached"]; n > 0 {
		out += "; " + words.Count(uint64(n)) + " never reached (counted apart)"
	}
	return out + "."
}

// last gives the latest deadline of a wave's boards, of these states or all.
func last(boards []rest.RolloutBoard, wave int, states ...string) (out *time.Time) {
	for i := range boards {
		b := &boards[i]
		if b.Wave == wave && b.Deadline != nil && (len(states) == 0 || slices.Contains(states, b.State)) && (out == nil || b.Deadline.After(*out)) {
			out = b.Deadline
		}
	}
	return out
}

func newBoard(s *live.Sheet, b *rest.RolloutBoard) boardRow {
	v := boardRow{RolloutBoard: *b, Word: boardWord(b.State), Tone: boardTone(b.State), Doing: b.Phase}
	if b.Phase != "" && b.Progress > 0 {
		v.Doing += " " + strconv.Itoa(b.Progress) + "\u00a0%"
	}
	if b.Proving {
		v.Doing = "proves what it runs"
	}
	if b.Tries > 1 {
		if v.Doing != "" {
			v.Doing += ", "
		}
		v.Doing += "attempt " + strconv.Itoa(b.Tries)
	}
	if b.Deadline != nil {
		v.Left = s.Text("b|"+b.Board, left(b.Deadline, s.At))
		v.Ends = soon(b.Deadline.In(s.At.Location()), s.At)
	}
	return v
}

// table picks the boards that the address asks for: of one wave, of one state; without a
// word those of the current wave, what needs a look first.
func table(s *live.Sheet, r *rest.Rollout, boards []rest.RolloutBoard, q url.Values, current int) *boardsView {
	v := &boardsView{Title: "Boards", Wave: q.Get("wave"), State: q.Get("state"), Empty: "No board matches."}
	if v.Wave == "" && current > 0 {
		v.Wave = strconv.Itoa(current)
	}
	if n, err := strconv.Atoi(v.Wave); err == nil {
		v.Title = fmt.Sprintf("Boards of wave %d", n)
	}
	var rows []rest.RolloutBoard
	for i := range boards {
		b := &boards[i]
		if (v.Wave == "" || v.Wave == "all" || strconv.Itoa(b.Wave) == v.Wave) && (v.State == "" || b.State == v.State) {
			rows = append(rows, *b)
		}
	}
	rank := func(state string) int {
		return slices.Index([]string{"failed", "stuck", "undoing", "trial", "installing", "assigned", "undone", "unreached", "waiting", "good"}, state)
	}
	slices.SortStableFunc(rows, func(a, b rest.RolloutBoard) int { return cmp.Compare(rank(a.State), rank(b.State)) })
	v.Total = len(rows)
	at, _ := strconv.Atoi(q.Get("page"))
	at = min(max(at, 0), len(rows)/maxBoards)
	rows = rows[at*maxBoards:]
	if len(rows) > maxBoards {
		rows = rows[:maxBoards]
		v.Older = "/rollouts/" + url.PathEscape(r.ID) + "?" + url.Values{"wave": {v.Wave}, "state": {v.State}, "page": {strconv.Itoa(at + 1)}}.Encode() + "#boards"
	}
	for i := range rows {
		v.Rows = append(v.Rows, newBoard(s, &rows[i]))
	}
	return v
}

// past writes the history.
func (v *oneView) past(s *live.Sheet) {
	for i, x := range v.Rollout.Steps {
		if i == maxSteps {
			v.Rest = len(v.Rollout.Steps) - maxSteps
			break
		}
		v.Steps = append(v.Steps, step{stamp(s, x.At), x.Who, stop(words.Sentence(x.Say))})
	}
	for _, x := range v.Rolls {
		v.Past = append(v.Past, attempt{stamp(s, x.Began) + " to " + stamp(s, x.Ended), stateWord(x.State), tone(x.State), stop(words.Sentence(x.Sentence))})
	}
}

// stop ends a sentence.
func stop(s string) string {
	if s == "" || s[len(s)-1] == '.' || s[len(s)-1] == '?' {
		return s
	}
	return s + "."
}
