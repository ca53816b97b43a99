// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/registry"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// maxQuery bounds a query, in bytes.
const maxQuery = 1024

// Matcher tells whether a board matches a query at a moment.
type Matcher func(b *web.Board, now time.Time) bool

// QueryError says at which column a query stops being understood, and what could have
// been meant.
type QueryError struct {
	Column   int // from 1
	What, Do string
}

// Error implements error.
func (e *QueryError) Error() string { return e.What }

// Config is what the looks are taken at.
type Config struct {
	Source web.Source
	// Parse understands a query and gives its canonical form; its error is a
	// *QueryError. nil: there are no queries, and callers with a limit see nothing.
	Parse func(q string) (m Matcher, canonical string, err error)
	// Check counts what boards delivered; nil leaves its route out.
	Check func(ctx context.Context, tenant string) ([]store.Check, error)
	// Registered lists the enrolled boards, for the old form of the list; nil: none.
	Registered func(ctx context.Context, tenant string) ([]registry.Board, error)
}

// Looks are the reading routes.
type Looks struct {
	cfg  Config
	born string // tags of two starts of the server never look alike
	kept listings
}

// New makes the reading half of the API.
func New(cfg Config) *Looks {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return &Looks{cfg: cfg, born: hex.EncodeToString(b[:]), kept: listings{by: map[string]*listing{}}}
}

// Mount adds the routes.
func (l *Looks) Mount(d *door.Door) {
	get := func(id, path, tag, summary string) door.Route {
		return door.Route{ID: id, Method: http.MethodGet, Path: path, Tag: tag, Summary: summary, Right: rest.BoardsRead}
	}
	l.mountBoards(d, get("list-boards", "boards", "boards", "List boards"))
	door.Handle(d, get("get-board", "boards/{board}", "boards", "One board, with all that is known of it"), l.board)
	old := get("overview", "overview", "boards", "All boards with all that is known of them")
	old.Deprecated = "Use boards, which has pages and queries."
	door.Handle(d, old, l.overview)
	door.Handle(d, get("check-query", "query/check", "boards", "What a query means and how many boards match it"), l.checkQuery)
	door.Handle(d, get("get-ledger", "boards/{board}/ledger", "boards", "The loss ledger of a board: made = arrived + lost + waiting"), l.ledger)
	door.Handle(d, get("get-series", "boards/{board}/series", "boards", "The history of a board's readings"), l.series)
	door.Handle(d, get("list-detections", "detections", "detections", "Detections, newest first"), l.detections)
	d.Raw(get("get-picture", "detections/{board}/{class}/{epoch}/{seq}/picture", "detections", "The picture of a detection"), func(op *huma.Operation) {
		for _, name := range []string{"board", "class", "epoch", "seq"} {
			op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
		}
		binary := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
		op.Responses["200"] = &huma.Response{Description: "The picture", Content: map[string]*huma.MediaType{
			"image/jpeg": binary, "image/png": binary, "application/octet-stream": binary,
		}}
	}, l.picture)
	if l.cfg.Check != nil {
		whole := get("check", "check", "boards", "What each board delivered, to check it against its own books")
		whole.Whole = true
		door.Handle(d, whole, l.check)
	}
}

// Seen is what a caller sees of the fleet at one moment.
type Seen struct {
	*web.Overview
	match []Matcher
}

// Has tells whether the caller sees the board and it matches what was asked for.
func (s *Seen) Has(b *web.Board) bool {
	for _, m := range s.match {
		if !m(b, s.At) {
			return false
		}
	}
	return true
}

// All tells whether the caller sees all boards and asked for all.
func (s *Seen) All() bool { return len(s.match) == 0 }

// Each gives the boards that the caller sees and asked for, by name.
func (s *Seen) Each(yield func(*web.Board) bool) {
	for i := range s.Boards {
		if b := &s.Boards[i]; s.Has(b) && !yield(b) {
			return
		}
	}
}

// Board finds a board among those.
func (s *Seen) Board(name string) (*web.Board, error) {
	i, ok := slices.BinarySearchFunc(s.Boards, name, func(b web.Board, n string) int { return strings.Compare(b.Name, n) })
	if !ok || !s.Has(&s.Boards[i]) {
		return nil, web.ErrNotFound
	}
	return &s.Boards[i], nil
}

// See looks at the fleet as the caller sees it, narrowed by a query; "" does not narrow.
func (l *Looks) See(ctx context.Context, by access.Caller, q string) (*Seen, error) {
	match, _, err := l.matchers(by, q)
	if err != nil {
		return nil, err
	}
	o, err := l.cfg.Source.Overview(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	return &Seen{o, match}, nil
}

// Target checks what something is to be done to: the query, whose errors point at a column,
// the boards that are named out of it, and whether any is left.
func (l *Looks) Target(ctx context.Context, by access.Caller, q string, boards []string) error {
	seen, err := l.See(ctx, by, q)
	if err != nil {
		return err
	}
	for _, b := range boards {
		if _, err := seen.Board(b); err != nil {
			return &door.Error{Code: rest.CodeTargetEmpty, Detail: "boards names one that is not there, or that the query leaves out", Cause: err}
		}
	}
	for range seen.Each {
		return nil
	}
	return door.Fail(rest.CodeTargetEmpty, "")
}

// Board finds a board of the caller's.
func (l *Looks) Board(ctx context.Context, by access.Caller, name string) (*web.Board, error) {
	s, err := l.See(ctx, by, "")
	if err != nil {
		return nil, err
	}
	return s.Board(name)
}

// matchers understands a caller's limit and a query.
func (l *Looks) matchers(by access.Caller, q string) (match []Matcher, canonical string, err error) {
	for i, text := range []string{by.Boards, q} {
		if text == "" {
			continue
		}
		if l.cfg.Parse == nil {
			return nil, "", door.Fail(rest.CodeLimited, "this server knows no queries")
		}
		if len(text) > maxQuery {
			return nil, "", door.Wrong("q", "takes at most 1,024 bytes")
		}
		m, c, err := l.cfg.Parse(text)
		if err != nil && i == 0 { // made by an older server: it lets nothing be seen
			return nil, "", &door.Error{Code: rest.CodeLimited, Detail: "the limit of this token is not understood; make the token anew", Cause: err}
		}
		if err != nil {
			return nil, "", wrongQuery(err)
		}
		match, canonical = append(match, m), c
	}
	if q == "" {
		canonical = ""
	}
	return match, canonical, nil
}

func wrongQuery(err error) error {
	var e *QueryError
	if !errors.As(err, &e) {
		return err
	}
	f := rest.Fault{Pointer: "q", Detail: e.What}
	if e.Column > 0 {
		f.Pointer = "q:" + digits(e.Column)
	}
	return &door.Error{Code: rest.CodeQuery, Faults: []rest.Fault{f}, Do: e.Do, Cause: err}
}

// named narrows a look to one board; a caller without a limit pays for no look.
func (l *Looks) named(ctx context.Context, by access.Caller, board string) error {
	if schema.CheckBoard(board) != nil {
		return web.ErrNotFound
	}
	if by.Boards == "" {
		return nil
	}
	s, err := l.See(ctx, by, "")
	if err != nil {
		return err
	}
	_, err = s.Board(board)
	return err
}

// Names gives a test for the names of the boards that the caller sees; nil is all.
func (l *Looks) Names(ctx context.Context, by access.Caller) (func(board string) bool, error) {
	return l.onlySeen(ctx, by, "")
}

// tag is the ETag of an answer that is made of a look, the caller's limit and words of
// the request.
func (l *Looks) tag(s *Seen, by access.Caller, words ...string) string {
	h := sha256.New()
	for _, w := range append([]string{l.born, s.At.Format(time.RFC3339Nano), by.Tenant, by.Boards}, words...) {
		h.Write([]byte(w))
		h.Write([]byte{0})
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:12]) + `"`
}

// fresh is how answers with a tag are kept: asked for again each time.
const fresh = "private, no-cache"

type checkQueryIn struct {
	Q string `query:"q" maxLength:"1024" doc:"A query"`
}

type checkQueryOut struct{ Body rest.QueryCheck }

func (l *Looks) checkQuery(ctx context.Context, by access.Caller, in *checkQueryIn) (*checkQueryOut, error) {
	match, canonical, err := l.matchers(by, in.Q)
	var e *door.Error
	var wrong *QueryError
	if errors.As(err, &e) && e.Code == rest.CodeQuery && errors.As(e, &wrong) {
		return &checkQueryOut{rest.QueryCheck{Column: max(1, wrong.Column), What: wrong.What, Do: wrong.Do}}, nil
	}
	if err != nil {
		return nil, err
	}
	o, err := l.cfg.Source.Overview(ctx, by.Tenant)
	if err != nil {
		return nil, err
	}
	out := &checkQueryOut{rest.QueryCheck{Query: canonical}}
	for range (&Seen{o, match}).Each {
		out.Body.Count++
	}
	return out, nil
}
