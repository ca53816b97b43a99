// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

const (
	maxArgs    = 4 << 10     // bytes: as boards take them
	maxQuery   = 1 << 10     // bytes: as the fleet takes it
	maxMinutes = 7 * 24 * 60 // a week; what is older is not meant any more
	validFor   = 5           // minutes, where nothing is said
)

// giveView is the form of a new command.
type giveView struct {
	Form  *form.Form
	Kinds []rest.CommandKind
	Two   []string // names that want a second person
	Board string   // for the links to kinds
	Hint  string   // which arguments the command takes, where that is known
}

// blank shows the form; ?board=, ?q=, ?name= and ?args= fill it in.
func (p *pages) blank(ctx context.Context, s *web.Shown) error {
	f := form.New("valid", strconv.Itoa(validFor))
	for param, most := range map[string]int{"name": maxName, "board": maxName, "q": maxQuery, "args": maxArgs} {
		if v := s.Query.Get(param); v != "" && len(v) <= most {
			f.Set(map[string]string{"name": "name", "board": "boards", "q": "query", "args": "args"}[param], v)
		}
	}
	if name := s.Query.Get("name"); s.Query.Get("args") == "" {
		f.Set("args", known(name).lines())
	}
	return p.form(ctx, s, f)
}

func (p *pages) form(ctx context.Context, s *web.Shown, f *form.Form) error {
	kinds, err := p.cfg.Commands.Kinds(ctx, s.Session.Caller())
	if err != nil {
		return p.cfg.Problem.Gone(err)
	}
	v := &giveView{Form: f, Kinds: kinds, Board: f.Raw("boards"), Hint: known(f.Raw("name")).words()}
	for _, k := range kinds {
		if k.Approval {
			v.Two = append(v.Two, k.Name)
		}
	}
	s.Title, s.Data = "Give a command", v
	return nil
}

func (p *pages) give(ctx context.Context, s *web.Shown, r *http.Request) (string, error) {
	f, err := form.Read(r)
	if err != nil {
		return "", err
	}
	spec := rest.CommandSpec{
		Name: f.Need("name", maxName), Boards: f.List("boards"), Query: f.Line("query", maxQuery), Args: args(f),
		ValidS: 60 * int64(f.Whole("valid", 1, maxMinutes, validFor)), Reason: f.Line("why", maxWhy), DryRun: f.Raw("do") == "check",
	}
	switch {
	case len(spec.Boards) == 0 && spec.Query == "":
		f.Wrong("boards", "Name boards, or give a query.")
	case len(spec.Boards) > 0 && spec.Query != "":
		f.Wrong("query", "Boards or a query, not both.")
	}
	if f.OK() {
		c, err := p.cfg.Commands.Give(ctx, s.Session.Caller(), spec)
		if err == nil {
			return to(c.ID), nil
		}
		var ok bool
		if s.Code, ok = p.cfg.Problem.Refused(f, err, fieldOf); !ok {
			return "", p.cfg.Problem.Gone(err)
		}
	}
	if err := p.form(ctx, s, f); err != nil {
		return "", err
	}
	return "", web.ErrAgain
}

// fieldOf gives the field for a pointer into a command.
func fieldOf(pointer string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(pointer, "/body"), "/")
	name, _, _ = strings.Cut(name, "/")
	if name == "valid_s" {
		return "valid"
	}
	if slices.Contains([]string{"name", "args", "boards", "query"}, name) {
		return name
	}
	return ""
}

// args reads lines of name=value, or one JSON object.
func args(f *form.Form) json.RawMessage {
	text := strings.TrimSpace(f.Raw("args"))
	switch {
	case text == "":
		return nil
	case len(text) > maxArgs:
		f.Wrong("args", "Too long: at most %d characters.", maxArgs)
		return nil
	case text[0] == '{':
		if !json.Valid([]byte(text)) {
			f.Wrong("args", "This is no JSON object.")
		}
		return json.RawMessage(text)
	}
	out := map[string]json.RawMessage{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if k = strings.TrimSpace(k); !ok || k == "" {
			f.Wrong("args", "%q has no value: write name=value, one in each line.", line)
			return nil
		}
		if strings.TrimSpace(v) == "" {
			f.Wrong("args", "%q has no value: write one, \"\" for an empty text, or leave the line out.", k)
			return nil
		}
		if _, twice := out[k]; twice {
			f.Wrong("args", "%q is there twice.", k)
			return nil
		}
		out[k] = typed(strings.TrimSpace(v))
	}
	b, err := json.Marshal(out)
	if err != nil {
		f.Wrong("args", "This cannot be sent.")
	}
	return b
}

// typed makes JSON of what a person typed: a number, true, false, a list or an object is
// what it looks like, all else is text; text that looks like one stands in quotes.
func typed(s string) json.RawMessage {
	if s != "" && json.Valid([]byte(s)) && s != "null" {
		return json.RawMessage(s)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return json.RawMessage(`""`)
	}
	return b
}
