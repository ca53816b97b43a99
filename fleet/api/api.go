// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
)

const (
	// readTimeout bounds one question to the ledger.
	readTimeout = 20 * time.Second
	// maxSeriesAsked bounds the series named in one request.
	maxSeriesAsked = 64
	// maxRange bounds the time one chart spans.
	maxRange = 31 * 24 * time.Hour
)

// Errors an [Auth] answers with.
var (
	ErrNotLoggedIn = errors.New("not logged in")
	ErrNotAllowed  = errors.New("not allowed")
)

// Auth tells for which tenant a request may read.
type Auth interface {
	Reader(r *http.Request) (tenant string, err error)
}

// Checker counts what boards delivered.
type Checker interface {
	Check(ctx context.Context, tenant string) ([]store.Check, error)
}

// Handler serves /api/v1.
type Handler struct {
	mux   *http.ServeMux
	src   web.Source
	check Checker
	auth  Auth
	hub   *Hub
	log   *slog.Logger
}

// New makes the API over a source.
func New(src web.Source, check Checker, auth Auth, hub *Hub, log *slog.Logger) *Handler {
	h := &Handler{mux: http.NewServeMux(), src: src, check: check, auth: auth, hub: hub, log: log}
	get := func(path string, fn func(http.ResponseWriter, *http.Request, string) error) {
		h.mux.HandleFunc("GET /api/v1/"+path, func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, fn) })
	}
	get("overview", h.overview)
	get("boards/{board}/series", h.series)
	get("boards/{board}/ledger", h.ledger)
	get("detections", h.detections)
	get("detections/{board}/{class}/{epoch}/{seq}/picture", h.picture)
	get("check", h.checkNumbers)
	get("events", h.events)
	h.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		Problem(w, http.StatusNotFound, "not-found", "There is nothing here")
	})
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// errInput is what the client can put right; its text is ours, not the client's.
type errInput string

func (e errInput) Error() string { return string(e) }

// errConflict is what stands against a change; its text is ours.
type errConflict string

func (e errConflict) Error() string { return string(e) }

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, fn func(http.ResponseWriter, *http.Request, string) error) {
	h.answer(w, r, func(w http.ResponseWriter, r *http.Request) error {
		tenant, err := h.auth.Reader(r)
		if err != nil {
			return err
		}
		return fn(w, r, tenant)
	})
}

// answer runs fn and puts its error into words.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, fn func(http.ResponseWriter, *http.Request) error) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	err := fn(w, r)
	var input errInput
	var conflict errConflict
	switch {
	case err == nil:
	case errors.Is(err, ErrNotLoggedIn):
		w.Header().Set("WWW-Authenticate", `Bearer realm="fulmar"`)
		Problem(w, http.StatusUnauthorized, "not-logged-in", "Log in, or send an API token")
	case errors.Is(err, ErrNotAllowed):
		Problem(w, http.StatusForbidden, "not-allowed", "This token or session may not do that")
	case errors.As(err, &input):
		Problem(w, http.StatusBadRequest, "bad-request", string(input))
	case errors.As(err, &conflict):
		Problem(w, http.StatusConflict, "conflict", string(conflict))
	case errors.Is(err, web.ErrNotFound):
		Problem(w, http.StatusNotFound, "not-found", "There is no such thing, or no longer")
	case r.Context().Err() != nil: // the client has gone
	default:
		h.log.Error("request failed", "path", r.Pattern, "error", err.Error())
		Problem(w, http.StatusInternalServerError, "internal", "The fleet could not answer; see its log")
	}
}

// Problem writes an error as problem+json.
func Problem(w http.ResponseWriter, status int, code, title string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:fulmar:problem:" + code, "title": title, "status": status})
}

func reply(w http.ResponseWriter, v any) error { return replyWith(w, http.StatusOK, v) }

func replyWith(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that has gone is no error of ours
	return nil
}

func (h *Handler) overview(w http.ResponseWriter, r *http.Request, tenant string) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	o, err := h.src.Overview(ctx, tenant)
	if err != nil {
		return err
	}
	return reply(w, o)
}

// ledgerReply is the loss ledger of one board: for each class made = arrived + lost
// + waiting, with the reasons of what was lost, and the newest gaps.
type ledgerReply struct {
	At       time.Time    `json:"at"`
	Board    string       `json:"board"`
	Online   bool         `json:"online"`
	State    web.State    `json:"state"`
	Since    time.Time    `json:"since"` // of the state
	LastSeen time.Time    `json:"last_seen"`
	Classes  []web.Ledger `json:"classes"`
	Gaps     []web.Gap    `json:"gaps"` // newest first, at most 50
}

func (h *Handler) ledger(w http.ResponseWriter, r *http.Request, tenant string) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	o, err := h.src.Overview(ctx, tenant)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(o.Boards, func(b web.Board) bool { return b.Name == r.PathValue("board") })
	if i < 0 {
		return web.ErrNotFound
	}
	b := &o.Boards[i]
	out := ledgerReply{o.At, b.Name, b.Online, b.State, b.Since, b.LastSeen, b.Ledger, b.Gaps}
	if out.Classes == nil {
		out.Classes = []web.Ledger{}
	}
	if out.Gaps == nil {
		out.Gaps = []web.Gap{}
	}
	return reply(w, out)
}

func (h *Handler) checkNumbers(w http.ResponseWriter, r *http.Request, tenant string) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	c, err := h.check.Check(ctx, tenant)
	if err != nil {
		return err
	}
	return reply(w, map[string]any{"boards": c})
}

// when reads a time given as ms since 1970 or RFC 3339.
func when(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil && ms >= 0 && ms < 1<<43 {
		return time.UnixMilli(ms), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 || t.Year() > 2200 {
		return time.Time{}, errInput("from and to want milliseconds since 1970 or RFC 3339")
	}
	return t, nil
}

func number(s string, def, limit int) (int, error) {
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > limit {
		return 0, errInput("a number is out of its range (limit 1 to 200, points 1 to 5000)")
	}
	return n, nil
}

func (h *Handler) series(w http.ResponseWriter, r *http.Request, tenant string) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	v := r.URL.Query()
	q := web.SeriesQuery{Tenant: tenant, Board: r.PathValue("board"), Series: v["series"]}
	var e1, e2, e3 error
	q.From, e1 = when(v.Get("from"))
	q.To, e2 = when(v.Get("to"))
	q.Points, e3 = number(v.Get("points"), 1000, 5000)
	if err := errors.Join(e1, e2, e3); err != nil {
		return errInput("from, to or points is wrong: wants times in ms since 1970 or RFC 3339, points 1 to 5000")
	}
	if schema.CheckBoard(q.Board) != nil || len(q.Series) > maxSeriesAsked {
		return errInput("the board's name is none, or over 64 series are named")
	}
	for _, s := range q.Series {
		if schema.CheckName(s) != nil {
			return errInput("a series name is none")
		}
	}
	if !q.From.IsZero() && !q.To.IsZero() && q.To.Sub(q.From) > maxRange {
		return errInput("from and to are over 31 days apart")
	}
	out, err := h.src.Series(ctx, q)
	if err != nil {
		return err
	}
	return reply(w, map[string]any{"series": out})
}

func (h *Handler) detections(w http.ResponseWriter, r *http.Request, tenant string) error {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	v := r.URL.Query()
	limit, err := number(v.Get("limit"), 50, 200)
	if err != nil {
		return err
	}
	q := web.DetectionQuery{
		Tenant: tenant, Board: v.Get("board"), Camera: v.Get("camera"), Limit: limit,
		Before: v.Get("before"), After: v.Get("after"), PicturesOnly: v.Get("pictures") == "1",
	}
	if q.Before != "" && q.After != "" {
		return errInput("before and after exclude each other")
	}
	out, err := h.src.Detections(ctx, q)
	if err != nil {
		return err
	}
	return reply(w, map[string]any{"detections": out})
}

func (h *Handler) picture(w http.ResponseWriter, r *http.Request, tenant string) error {
	id := r.PathValue("board") + "/" + r.PathValue("class") + "/" + r.PathValue("epoch") + "/" + r.PathValue("seq")
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	d, err := h.src.Detections(ctx, web.DetectionQuery{Tenant: tenant, ID: id, Limit: 1})
	if err != nil {
		return err
	}
	if len(d) == 0 || !d[0].HasPicture {
		return web.ErrNotFound
	}
	f, err := h.src.Picture(ctx, tenant, d[0].Board, d[0].Event.Snapshot)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	// The type is found here, never taken from the board: a picture is a picture.
	head := make([]byte, 512)
	n, _ := io.ReadFull(f, head)
	kind := http.DetectContentType(head[:n])
	if kind != "image/jpeg" && kind != "image/png" {
		kind = "application/octet-stream"
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}
