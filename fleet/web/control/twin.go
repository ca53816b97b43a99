// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/words"
	"fulmar/schema/rest"
)

const (
	maxHistory = 20 // changes of a twin shown; the API has more
	maxOfBoard = 15 // commands of a board
	maxKey     = 96 // bytes: as twins take it
	maxValue   = 1 << 10
)

// twinView is one board's twin.
type twinView struct {
	*rest.Twin
	Title, Say, Tone string
	Seen             template.HTML
	Rows             []keyRow
	Outputs          []output
	Safety           *safety
	Alone            string // what the board says of its autonomy
	Rules            []fact
	Rest             []fact // the rest of what it reports
	Commands         []row
	Past             []change
	Edit             bool
	Form             *form.Form
	Conflict         int
	Names            []string // of the commands that it has
}

// keyRow is one key that somebody set.
type keyRow struct {
	rest.TwinKey
	Holds, Word, Tone, Who, Say string
}

// output is one output of the board as it says.
type output struct {
	Name, Value, Unit, Range, Safe, Word, Tone, Say, Width string
	Known                                                  bool
}

// safety is the safety shutdown, where it holds.
type safety struct {
	Active bool   `json:"active"`
	By     string `json:"by"`
}

// fact is one reported key.
type fact struct{ Name, Text string }

// change is one line of the history.
type change struct{ When, What, Who, Say string }

func (p *pages) twin(ctx context.Context, s *web.Shown) error { return p.show(ctx, s, form.New()) }

func (p *pages) show(ctx context.Context, s *web.Shown, f *form.Form) error {
	board, by := s.Value("board"), s.Session.Caller()
	if len(board) > maxName {
		return web.ErrNotFound
	}
	t, err := p.cfg.Twins.Twin(ctx, by, board)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	cs, err := p.cfg.Commands.List(ctx, by, board, maxOfBoard)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	past, err := p.cfg.Twins.History(ctx, by, board, maxHistory)
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	v := &twinView{Twin: t, Edit: s.May(rest.CommandsSend), Form: f, Conflict: t.Conflicts}
	v.sum()
	if !t.Seen.IsZero() {
		v.Seen = s.Ago("seen", t.Seen)
	}
	v.keys()
	v.reported()
	for i := range cs {
		v.Commands = append(v.Commands, newRow(s.Sheet, &cs[i]))
	}
	for _, e := range past {
		v.Past = append(v.Past, newChange(s, e))
	}
	s.Title, s.Data = v.Title, v
	s.Shape("verdict", v.Title, v.Say, v.Alone)
	s.Shape("outputs", v.Outputs, v.Safety, v.Rules)
	s.Shape("keys", v.Version, v.Applied, v.Rows)
	s.Shape("commands", shapes([]group{{Rows: v.Commands}})...)
	s.Shape("past", v.Past)
	s.Shape("rest", v.Rest)
	return nil
}

// sum says how the board and the fleet stand to each other.
func (v *twinView) sum() {
	v.Title, v.Tone = v.Board+" is as the fleet wants it", "healthy"
	not, here := 0, 0
	for _, k := range v.Twin.Keys {
		switch {
		case k.State == "refused" || k.State == "undone":
			not++
		case k.From == "board":
			here++
		}
	}
	switch {
	case v.Twin.Seen.IsZero():
		v.Title, v.Tone, v.Say = v.Board+" has not spoken of its settings yet", "never", "Its release may be older than settings from the fleet. What is set here waits for it."
	case v.Conflicts > 0:
		v.Title, v.Tone = v.Board+": "+words.Plural(v.Conflicts, "setting waits", "settings wait")+" for a decision", "degraded"
	case !v.InSync:
		v.Title, v.Tone = v.Board+" has not taken the newest settings yet", "run"
		v.Say = fmt.Sprintf("It has version %d of %d. They go to it as soon as it is there.", v.Applied, v.Version)
	case not > 0:
		v.Title, v.Tone = v.Board+" does not take "+words.Plural(not, "setting", "settings"), "failing"
	case here > 0:
		v.Title = v.Board + ": " + words.Plural(here, "setting is", "settings are") + " as somebody set on the board"
	case v.Version == 0:
		v.Title = v.Board + " runs on its own config file"
	}
}

func (v *twinView) keys() {
	for _, k := range v.Twin.Keys {
		r := keyRow{TwinKey: k, Holds: ofKey(k.Key, k.Value), Word: k.State}
		if len(k.Value) == 0 {
			r.Holds = "not set"
		}
		r.Tone = map[string]string{"applied": "healthy", "pending": "run", "refused": "failing", "undone": "failing", "conflict": "degraded"}[k.State]
		wants := ""
		if k.Fleet != nil {
			wants = "deleted"
			if len(k.Fleet.Value) > 0 {
				wants = ofKey(k.Key, k.Fleet.Value)
			}
			r.Who, r.Say = person(k.Fleet.Author), stop(k.Fleet.Reason)
		}
		here := k.From == "board" && len(k.Board) > 0
		if here {
			r.Who, r.Say = person(k.Board[0].Author)+", on the board", stop(k.Board[0].Reason)
			if k.Board[0].LeaseS > 0 {
				r.Who += ", for a time"
			}
			if k.State == "applied" {
				r.Word = "set on the board"
			}
		}
		switch {
		case k.Refused != "" && here:
			r.Say = "The fleet's " + wants + " is not taken: " + words.Lower(stop(k.Refused))
		case k.Refused != "":
			r.Say = "Not taken: " + words.Lower(stop(k.Refused))
			if is, ok := v.Twin.Reported["config."+k.Key]; ok { // else what it was, which nobody knows here
				r.Say, r.Holds = wants+" is not taken: "+words.Lower(stop(k.Refused)), value(is)
			}
		case here && wants != "":
			r.Say = strings.TrimSpace(r.Say + " The fleet wants " + wants + ".")
		}
		v.Rows = append(v.Rows, r)
	}
}

// reported sorts what the board says into outputs, rules and the rest.
func (v *twinView) reported() {
	for _, k := range slices.Sorted(maps.Keys(v.Twin.Reported)) {
		raw := v.Twin.Reported[k]
		kind, name, _ := strings.Cut(k, ".")
		switch {
		case kind == "output" && name != "":
			if o, ok := newOutput(name, raw); ok {
				v.Outputs = append(v.Outputs, o)
				continue
			}
		case kind == "rule" && name != "":
			v.Rules = append(v.Rules, fact{name, ruleWords(raw)})
			continue
		case k == "safety":
			var x safety
			if json.Unmarshal(raw, &x) == nil {
				if x.By = person(x.By); x.Active {
					v.Safety = &x
				}
				continue
			}
		case k == "autonomy":
			v.Alone = alone(raw)
			continue
		case k == "commands" && json.Unmarshal(raw, &v.Names) == nil:
			slices.Sort(v.Names)
			continue
		case k == "twin.refused": // beside its keys
			continue
		}
		if text := inWords(raw); text != "" {
			v.Rest = append(v.Rest, fact{strings.TrimPrefix(k, "config."), text})
		}
	}
}

// ruleWords says how a rule is.
func ruleWords(raw json.RawMessage) string {
	var x struct {
		State  string `json:"state"`
		Fired  uint64 `json:"fired"`
		Why    string `json:"why"`
		Slowed bool   `json:"slowed"`
	}
	if json.Unmarshal(raw, &x) != nil || x.State == "" {
		return inWords(raw)
	}
	out := x.State
	switch {
	case x.Fired == 1:
		out += ", fired once"
	case x.Fired > 1:
		out += ", fired " + words.Count(x.Fired) + " times"
	}
	if x.Slowed {
		out += "; it fires too often, and now once a minute at most"
	}
	if x.Why != "" {
		out += "; " + x.Why
	}
	return out
}

// alone says whether the board acts on its own; "" where it does not, and nothing is left
// of the last time.
func alone(raw json.RawMessage) string {
	var x struct {
		State string `json:"state"`
		Stays string `json:"stays"`
		Why   string `json:"why"`
	}
	if json.Unmarshal(raw, &x) != nil {
		return ""
	}
	out := map[string]string{
		"alone": "acts on its own: it could not ask the fleet", "over": "was alone for longer than it may act: outputs go to their safe states",
		"safe": "was alone for longer than it may act: outputs are in their safe states",
	}[x.State]
	if out == "" && x.Stays != "" {
		out = "was alone, and in their safe states until somebody sets them stay: " + x.Stays
	}
	if out != "" && x.Why != "" {
		out += "; " + x.Why
	}
	return out
}

// newOutput reads what a board says of an output; its states are those of device/output.
func newOutput(name string, raw json.RawMessage) (output, bool) {
	var x struct {
		Value *float64 `json:"value"`
		Unit  string   `json:"unit"`
		Min   float64  `json:"min"`
		Max   float64  `json:"max"`
		Safe  *float64 `json:"safe"`
		State string   `json:"state"`
		Why   string   `json:"why"`
		By    string   `json:"by"`
	}
	if json.Unmarshal(raw, &x) != nil {
		return output{}, false
	}
	if x.Unit == "percent" {
		x.Unit = "%"
	}
	o := output{Name: name, Unit: x.Unit, Range: num(x.Min) + " to " + num(x.Max), Word: x.State, Say: stop(x.Why), Width: "0%"}
	// The words of boards' outputs, see device/output.
	o.Tone = map[string]string{"set": "healthy", "moving": "run", "safe": "degraded", "failed": "failing"}[x.State]
	if o.Tone == "" {
		o.Tone = "never"
	}
	switch x.State {
	case "safe":
		o.Word = "held safe"
	case "unknown":
		o.Word = "not set since the start"
	}
	if x.By != "" && o.Say == "" {
		o.Say = "By " + person(x.By) + "."
	}
	if x.Value != nil {
		o.Known, o.Value = true, num(*x.Value)
		if x.Max > x.Min {
			o.Width = fmt.Sprintf("%.1f%%", min(max(100*(*x.Value-x.Min)/(x.Max-x.Min), 0), 100))
		}
	}
	if x.Safe != nil {
		o.Safe = num(*x.Safe)
	}
	return o, true
}

// inWords writes a reported value: an object as name value, name value.
func inWords(raw json.RawMessage) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) == nil && m != nil {
		var out []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out = append(out, k+" "+value(m[k]))
		}
		if len(out) == 0 {
			return "none"
		}
		return clip(strings.Join(out, ", "))
	}
	var l []json.RawMessage
	if json.Unmarshal(raw, &l) == nil && l != nil {
		var out []string
		for _, x := range l {
			out = append(out, value(x))
		}
		return strings.Join(out, ", ")
	}
	return value(raw)
}

func newChange(s *web.Shown, e rest.TwinEvent) change {
	c := change{When: s.Stamp(e.At), Who: person(e.Author), Say: stop(e.Reason)}
	switch v := ofKey(e.Key, e.Value); e.Kind {
	case "set":
		c.What = e.Key + " set to " + v
	case "deleted":
		c.What = e.Key + " taken back"
	case "applied":
		c.What = fmt.Sprintf("the board has taken version %d", e.Version)
	case "held":
		c.What = e.Key + ": board and fleet want different things"
	case "overridden":
		c.What = e.Key + " set to " + v + " on the board"
	case "cleared":
		c.What = e.Key + ": what was set on the board is over"
	case "replaced":
		c.What = e.Key + ": the fleet's " + v + " replaces what was set on the board"
	case "decided":
		c.What = e.Key + ": " + v + " holds"
	case "refused":
		c.What = e.Key + ": the board does not take it"
	case "undone":
		c.What = "the board went back to the settings before"
	default:
		c.What = e.Key + " " + e.Kind
	}
	for _, l := range e.Lost {
		if e.Kind == "decided" || e.Kind == "cleared" || e.Kind == "replaced" {
			c.Say = strings.TrimSpace(c.Say + " Lost: " + value(l.Value) + " of " + person(l.Author) + ".")
		}
	}
	return c
}

// set changes one key from the form.
func (p *pages) set(ctx context.Context, s *web.Shown, r *http.Request) (string, error) {
	f, err := form.Read(r)
	if err != nil {
		return "", err
	}
	board := s.Value("board")
	key, text := f.Need("key", maxKey), f.Line("value", maxValue)
	version, err := strconv.ParseUint(f.Raw("version"), 10, 64)
	patch := rest.TwinPatch{Set: map[string]json.RawMessage{key: json.RawMessage("null")}, Reason: f.Line("why", maxWhy)}
	if f.Raw("do") != "unset" {
		if text == "" {
			f.Wrong("value", "This is needed.")
		}
		patch.Set[key] = typed(text)
	}
	if err != nil {
		f.Refuse("Nothing was changed: the form is not whole.", "Open the page anew.")
	}
	if f.OK() {
		if err = p.cfg.Twins.Patch(ctx, s.Session.Caller(), board, version, patch); err == nil {
			return "/boards/" + url.PathEscape(board) + "/control", nil
		}
		var ok bool
		if s.Code, ok = p.cfg.Problem.Refused(f, err, func(string) string { return "value" }); !ok {
			return "", p.cfg.Problem.Gone(err)
		}
	}
	if err := p.show(ctx, s, f); err != nil {
		return "", err
	}
	return "", web.ErrAgain
}

// conflictsView is what a person has to decide.
type conflictsView struct {
	Headline string
	Rows     []conflictRow
	Edit     bool
	Form     *form.Form
}

type conflictRow struct {
	Board, Key, Holds   string
	Fleet, FleetBy      string
	Value, By, Why      string
	FleetWhy            string
	More                int
	Since               template.HTML
	FleetHolds, BoardUp bool
}

func (p *pages) conflicts(ctx context.Context, s *web.Shown) error {
	return p.disputes(ctx, s, form.New())
}

func (p *pages) disputes(ctx context.Context, s *web.Shown, f *form.Form) error {
	all, err := p.cfg.Twins.Conflicts(ctx, s.Session.Caller())
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	v := &conflictsView{Headline: "Board and fleet agree everywhere", Edit: s.May(rest.CommandsSend), Form: f}
	if n := len(all); n > 0 {
		v.Headline = words.Plural(n, "setting waits", "settings wait") + " for a decision"
	}
	shape := []any{}
	for _, c := range all[:min(len(all), maxBoards)] {
		r := conflictRow{Board: c.Board, Key: c.Key, Holds: value(c.Holds), Fleet: "not set"}
		if c.Fleet != nil {
			r.Fleet, r.FleetBy, r.FleetWhy = value(c.Fleet.Value), person(c.Fleet.Author), stop(c.Fleet.Reason)
			if len(c.Fleet.Value) == 0 {
				r.Fleet = "deleted"
			}
		}
		if len(c.Edits) > 0 {
			r.Value, r.By, r.Why, r.More = value(c.Edits[0].Value), person(c.Edits[0].Author), stop(c.Edits[0].Reason), len(c.Edits)-1
		}
		r.FleetHolds, r.BoardUp = r.Holds == r.Fleet, r.Holds == r.Value
		r.Since = s.Ago("d|"+c.Board+"|"+c.Key, c.Since)
		v.Rows = append(v.Rows, r)
		shape = append(shape, c.Board, c.Key, r.Fleet, r.Value, r.Holds)
	}
	s.Shape("verdict", v.Headline)
	s.Shape("rows", shape...)
	s.Title, s.Data = v.Headline, v
	return nil
}

func (p *pages) decide(ctx context.Context, s *web.Shown, r *http.Request) (string, error) {
	f, err := form.Read(r)
	if err != nil {
		return "", err
	}
	board, key, side := f.Need("board", maxName), f.Need("key", maxKey), f.OneOf("side", "fleet", "board")
	if f.OK() {
		if err = p.cfg.Twins.Decide(ctx, s.Session.Caller(), board, key, side); err == nil {
			return "/conflicts", nil
		}
		var ok bool
		if s.Code, ok = p.cfg.Problem.Refused(f, err, func(string) string { return "" }); !ok {
			return "", p.cfg.Problem.Gone(err)
		}
	}
	if err := p.disputes(ctx, s, f); err != nil {
		return "", err
	}
	return "", web.ErrAgain
}
