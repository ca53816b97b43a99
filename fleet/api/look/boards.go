// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/registry"
	"fulmar/fleet/web"
	"fulmar/fleet/web/verdict"
	"fulmar/schema/rest"
)

const pageSize = 100

type boardsIn struct {
	Q         string   `query:"q" maxLength:"1024" doc:"Which boards, as a query"`
	PageSize  int      `query:"page_size" minimum:"1" maximum:"1000" doc:"Boards of one page; 100 if not given, all for CSV and NDJSON"`
	PageToken string   `query:"page_token" maxLength:"512" doc:"next of the page before"`
	Count     bool     `query:"count" doc:"Count all that match"`
	Fields    []string `query:"fields" maxItems:"32" doc:"Fields to tell of each board, with commas between them; board, state and online always are"`
	Sort      string   `query:"sort" enum:"name,-name,state,-state,seen,-seen,since,-since" doc:"Order; state is worst first, seen and since oldest first"`
	Accept    string   `header:"Accept" hidden:"true"`
	Tag       string   `header:"If-None-Match" doc:"The ETag of the answer that the caller has"`
	raw       string
}

// Resolve implements [huma.Resolver].
func (in *boardsIn) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	in.raw = u.RawQuery
	return nil
}

type boardsOut struct {
	Type  string `header:"Content-Type"`
	Tag   string `header:"ETag"`
	Cache string `header:"Cache-Control"`
	Link  string `header:"Link" doc:"The page that follows, rel=next"`
	Body  []byte
}

// BoardList is a page of boards.
type BoardList struct {
	rest.List[rest.BoardSummary]
	// Boards is the list of enrolled boards in its old form, where no parameter is given.
	Boards []Registered `json:"boards,omitempty" deprecated:"true"`
}

// Registered is an enrolled board, in the old form of the list.
type Registered struct {
	Board       string     `json:"board"`
	Trust       string     `json:"trust"` // ek-chain, ek-listed, ek-first-use or software
	Fingerprint string     `json:"fingerprint"`
	TPM         *TPM       `json:"tpm,omitempty"`
	Enrolled    time.Time  `json:"enrolled"`
	Until       time.Time  `json:"certificate_until"`
	Revoked     *time.Time `json:"revoked,omitempty"`
}

// TPM is what a board's TPM is.
type TPM struct {
	Kind     string `json:"kind"` // the board's own words, but note
	Maker    string `json:"maker"`
	Firmware string `json:"firmware"`
	Note     string `json:"note"` // what the fleet found of its maker's certificate
}

func (l *Looks) mountBoards(d *door.Door, route door.Route) {
	door.Handle(d, route, l.boards, func(op *huma.Operation) {
		text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
		op.Responses["200"] = &huma.Response{Description: "Boards", Content: map[string]*huma.MediaType{
			"application/json": {Schema: d.SchemaOf(BoardList{})}, "text/csv": text, "application/x-ndjson": text,
		}}
	})
}

// form is a way to write a list.
func form(accept string) string {
	for part := range strings.SplitSeq(accept, ",") {
		switch kind, _, _ := strings.Cut(strings.TrimSpace(part), ";"); kind {
		case "text/csv", "application/x-ndjson":
			return kind
		case "application/json", "*/*":
			return "application/json"
		}
	}
	return "application/json"
}

func (l *Looks) boards(ctx context.Context, by access.Caller, in *boardsIn) (*boardsOut, error) {
	s, err := l.See(ctx, by, in.Q)
	if err != nil {
		return nil, err
	}
	out := &boardsOut{Type: form(in.Accept), Cache: fresh}
	out.Tag = l.tag(s, by, in.raw, out.Type)
	if in.Tag != "" && door.Holds(in.Tag, out.Tag) && in.PageToken == "" {
		return nil, door.Same{Tag: out.Tag}
	}
	keep, err := fieldsOf(in.Fields)
	if err != nil {
		return nil, err
	}
	size := in.PageSize
	if size == 0 {
		if size = pageSize; out.Type != "application/json" {
			size = len(s.Boards) // an export is whole
		}
	}
	p, err := l.page(s, by, in, size)
	if err != nil {
		return nil, err
	}
	list := BoardList{List: rest.List[rest.BoardSummary]{Items: make([]rest.BoardSummary, len(p.boards)), Next: p.next}}
	for i, b := range p.boards {
		list.Items[i] = summary(b)
		keep(&list.Items[i])
	}
	if in.Count {
		n := 0
		for range s.Each {
			n++
		}
		list.Total = &n
	}
	if in.raw == "" && l.cfg.Registered != nil && out.Type == "application/json" {
		if list.Boards, err = l.registered(ctx, by, s); err != nil {
			return nil, err
		}
	}
	if p.next != "" {
		out.Link = nextLink(in.raw, p.next)
	}
	out.Body, err = write(out.Type, &list, in.Fields)
	return out, err
}

func nextLink(raw, next string) string {
	v, _ := url.ParseQuery(raw) // what it does not understand is not in the next address
	v.Set("page_token", next)
	return "</api/v1/boards?" + v.Encode() + `>; rel="next"`
}

// summary is a board in a list. Its state is one word, as queries have it.
func summary(b *web.Board) rest.BoardSummary {
	s := rest.BoardSummary{
		Board: b.Name, State: strings.ReplaceAll(string(b.State), " ", "-"), Cause: b.Cause, Since: b.Since.UTC(), LastSeen: b.LastSeen.UTC(), Online: b.Online,
		Release: b.Release, Facts: b.Facts, Site: b.Meta.Site, Labels: b.Meta.Labels,
	}
	if t := b.Trust; t != nil {
		s.Trust, s.Fingerprint, s.Until, s.Revoked = t.How, t.Fingerprint, t.Until.UTC(), t.Revoked.UTC()
	}
	return s
}

// fieldsOf gives what empties the fields that were not asked for. Those that are never
// left out of the JSON stay.
func fieldsOf(names []string) (func(*rest.BoardSummary), error) {
	if len(names) == 0 {
		return func(*rest.BoardSummary) {}, nil
	}
	t := reflect.TypeFor[rest.BoardSummary]()
	var empty []int
	known := 0
	for i := range t.NumField() {
		name, option, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if slices.Contains(names, name) {
			known++
		} else if option != "" {
			empty = append(empty, i)
		}
	}
	if known != len(names) {
		return nil, door.Wrong("fields", "names a field that boards do not have, or one twice; there are "+strings.Join(header(), ", "))
	}
	return func(s *rest.BoardSummary) {
		v := reflect.ValueOf(s).Elem()
		for _, i := range empty {
			v.Field(i).SetZero()
		}
	}, nil
}

// header lists the fields of a board in a list.
func header() (names []string) {
	t := reflect.TypeFor[rest.BoardSummary]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// write writes a list as JSON, as a JSON object a line, or as CSV.
func write(kind string, list *BoardList, fields []string) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	switch kind {
	case "application/x-ndjson":
		for i := range list.Items {
			if err := enc.Encode(&list.Items[i]); err != nil {
				return nil, err
			}
		}
		return out.Bytes(), nil
	case "text/csv":
		err := writeCSV(&out, list.Items, fields)
		return out.Bytes(), err
	}
	err := enc.Encode(list)
	return out.Bytes(), err
}

func writeCSV(out *bytes.Buffer, items []rest.BoardSummary, fields []string) error {
	if len(fields) == 0 {
		fields = header()
	}
	w := csv.NewWriter(out)
	_ = w.Write(fields) // Error tells
	row := make([]string, len(fields))
	at := make([]int, len(fields))
	for i, f := range fields {
		at[i] = slices.Index(header(), f)
	}
	for n := range items {
		v := reflect.ValueOf(items[n])
		for i := range at {
			row[i] = cell(v.Field(at[i]).Interface())
		}
		_ = w.Write(row)
	}
	w.Flush()
	return w.Error()
}

// cell writes a value for a spreadsheet. Text that one would take for a formula gets an
// apostrophe before it: boards choose what they say of themselves.
func cell(v any) string {
	switch v := v.(type) {
	case time.Time:
		if v.IsZero() {
			return ""
		}
		return v.Format(time.RFC3339Nano)
	case bool:
		return strconv.FormatBool(v)
	case string:
		if v != "" && strings.ContainsRune("=+-@\t\r", rune(v[0])) {
			return "'" + v
		}
		return v
	case map[string]string:
		parts := make([]string, 0, len(v))
		for k, x := range v {
			parts = append(parts, k+"="+x)
		}
		slices.Sort(parts)
		return cell(strings.Join(parts, "; "))
	}
	return ""
}

// registered lists the enrolled boards that the caller sees, in the old form.
func (l *Looks) registered(ctx context.Context, by access.Caller, s *Seen) ([]Registered, error) {
	boards, err := l.cfg.Registered(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	out := []Registered{}
	for i := range boards {
		b := &boards[i]
		if _, err := s.Board(b.Name); err != nil && !s.All() {
			continue
		}
		r := Registered{Board: b.Name, Trust: b.Trust, Fingerprint: b.Fingerprint(), Enrolled: b.EnrolledAt, Until: b.NotAfter, TPM: tpmOf(b)}
		if b.Revoked {
			r.Revoked = &b.RevokedAt
		}
		out = append(out, r)
	}
	return out, nil
}

func tpmOf(b *registry.Board) *TPM {
	if len(b.EKHash) == 0 {
		return nil
	}
	return &TPM{b.TPMKind, b.TPMMaker, b.TPMFirmware, b.EKNote}
}

// order gives the comparison of a sort word; nil is by name.
func order(sort string) func(a, b *web.Board) int {
	word, down := strings.CutPrefix(sort, "-")
	var by func(a, b *web.Board) int
	switch word {
	case "state":
		states := verdict.States()
		by = func(a, b *web.Board) int {
			return cmp.Compare(slices.Index(states, a.State), slices.Index(states, b.State))
		}
	case "seen":
		by = func(a, b *web.Board) int { return a.LastSeen.Compare(b.LastSeen) }
	case "since":
		by = func(a, b *web.Board) int { return a.Since.Compare(b.Since) }
	default:
		return nil
	}
	return func(a, b *web.Board) int {
		n := by(a, b)
		if down {
			n = -n
		}
		return cmp.Or(n, strings.Compare(a.Name, b.Name))
	}
}

func digits(n int) string { return strconv.Itoa(n) }

type boardIn struct {
	Board string `path:"board" doc:"Its name"`
	Tag   string `header:"If-None-Match" doc:"The ETag of the answer that the caller has"`
}

type boardOut struct {
	Tag   string `header:"ETag"`
	Cache string `header:"Cache-Control"`
	Body  *web.Board
}

func (l *Looks) board(ctx context.Context, by access.Caller, in *boardIn) (*boardOut, error) {
	s, err := l.See(ctx, by, "")
	if err != nil {
		return nil, err
	}
	b, err := s.Board(in.Board)
	if err != nil {
		return nil, err
	}
	tag := l.tag(s, by, "board", in.Board)
	if in.Tag != "" && door.Holds(in.Tag, tag) {
		return nil, door.Same{Tag: tag}
	}
	return &boardOut{tag, fresh, b}, nil
}

type overviewIn struct {
	Tag string `header:"If-None-Match" doc:"The ETag of the answer that the caller has"`
}

type overviewOut struct {
	Tag   string `header:"ETag"`
	Cache string `header:"Cache-Control"`
	Body  *web.Overview
}

func (l *Looks) overview(ctx context.Context, by access.Caller, in *overviewIn) (*overviewOut, error) {
	s, err := l.See(ctx, by, "")
	if err != nil {
		return nil, err
	}
	tag := l.tag(s, by, "overview")
	if in.Tag != "" && door.Holds(in.Tag, tag) {
		return nil, door.Same{Tag: tag}
	}
	if s.All() {
		return &overviewOut{tag, fresh, s.Overview}, nil
	}
	o := &web.Overview{At: s.At, Boards: []web.Board{}}
	for b := range s.Each {
		o.Boards = append(o.Boards, *b)
	}
	return &overviewOut{tag, fresh, o}, nil
}
