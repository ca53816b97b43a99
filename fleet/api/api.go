// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// Errors that Config.Caller answers with.
var (
	ErrNotLoggedIn = door.ErrNotLoggedIn
	ErrNotAllowed  = access.ErrNotAllowed
)

// Config is what the API is made of. A part that is nil leaves its routes out; Caller,
// Source, Hub and Log have to be there.
type Config struct {
	Caller func(r *http.Request) (access.Caller, error)
	Source web.Source
	Hub    *Hub
	Log    *slog.Logger

	Keys  door.Keys    // nil refuses Idempotency-Key
	Known []door.Known // the errors of the parts, and what they mean
	Fault func(err error) (rest.Fault, bool)
	// Parse understands queries; nil refuses them, and callers with a limit.
	Parse  func(q string) (look.Matcher, string, error)
	Check  func(ctx context.Context, tenant string) ([]store.Check, error)
	Keeper Keeper
	// Parts are the parts that are kept apart; Looks is filled in.
	Parts parts.Parts
	// Prometheus answers Prometheus' query API at Prometheus' own paths (/api/v1/query),
	// Targets its service discovery. Within puts into a context whose series they may
	// tell: the tenant's, and of the boards for which seen says so; nil is all.
	Prometheus http.Handler
	Targets    http.Handler
	Within     func(ctx context.Context, tenant string, seen func(board string) bool) context.Context
}

// Handler serves /api/v1.
type Handler struct {
	door  *door.Door
	looks *look.Looks
	hub   *Hub
}

// New makes the API.
func New(cfg Config) (*Handler, error) {
	d := door.New(door.Config{Caller: cfg.Caller, Keys: cfg.Keys, Known: cfg.Known, Fault: cfg.Fault, Log: cfg.Log})
	seen := look.Config{Source: cfg.Source, Parse: cfg.Parse, Check: cfg.Check}
	if cfg.Keeper != nil {
		seen.Registered = cfg.Keeper.Boards
	}
	h := &Handler{door: d, looks: look.New(seen), hub: cfg.Hub}
	h.looks.Mount(d)
	h.mountEvents(d)
	mountMe(d)
	if cfg.Keeper != nil {
		(&keep{cfg.Keeper, h.looks, newOperations(d)}).mount(d)
	}
	cfg.Parts.Looks = h.looks
	cfg.Parts.Mount(d)
	h.mountPrometheus(cfg)
	return h, h.mountDocument()
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.door.ServeHTTP(w, r) }

// Routes lists the routes.
func (h *Handler) Routes() []door.Route { return h.door.Routes() }

// Document is the OpenAPI description, strict as door.Document has it.
func (h *Handler) Document(strict bool) ([]byte, error) { return h.door.Document(strict) }

// mountDocument adds the description, which is made of all routes that were added before.
func (h *Handler) mountDocument() error {
	var doc []byte
	h.door.Raw(door.Route{
		ID: "get-description", Method: http.MethodGet, Path: "openapi.json", Tag: "about", Summary: "This description", Open: true,
	}, func(op *huma.Operation) {
		op.Responses["200"] = &huma.Response{Description: "OpenAPI 3.1", Content: map[string]*huma.MediaType{
			"application/json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}},
		}}
	}, func(w http.ResponseWriter, _ *http.Request, _ access.Caller) error {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(doc) // a client that has gone is no error of ours
		return nil
	})
	var err error
	doc, err = h.door.Document(false)
	return err
}

type meOut struct{ Body rest.Me }

func mountMe(d *door.Door) {
	door.Handle(d, door.Route{ID: "get-me", Method: http.MethodGet, Path: "me", Tag: "about", Summary: "Who the caller is and what they may do"},
		func(_ context.Context, by access.Caller, _ *struct{}) (*meOut, error) {
			return &meOut{rest.Me{Tenant: by.Tenant, Who: by.Who, Author: by.Author, Rights: by.Rights, Boards: by.Boards}}, nil
		})
}

// prometheus is where Prometheus' own paths begin.
const prometheus = "/api/v1/prometheus"

// mountPrometheus adds the handlers of the telemetry.
func (h *Handler) mountPrometheus(cfg Config) {
	if cfg.Within == nil {
		return
	}
	raw := func(next http.Handler) func(http.ResponseWriter, *http.Request, access.Caller) error {
		return func(w http.ResponseWriter, r *http.Request, by access.Caller) error {
			seen, err := h.looks.Names(r.Context(), by)
			if err != nil {
				return err
			}
			next.ServeHTTP(w, r.WithContext(cfg.Within(r.Context(), by.Tenant, seen)))
			return nil
		}
	}
	anything := map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{}}}
	if cfg.Prometheus != nil {
		handler := raw(http.StripPrefix(prometheus, cfg.Prometheus))
		for _, r := range []door.Route{
			{ID: "prometheus", Method: http.MethodGet, Path: "api/v1/{endpoint}"},
			{ID: "prometheus-post", Method: http.MethodPost, Path: "api/v1/{endpoint}"},
			{ID: "prometheus-label", Method: http.MethodGet, Path: "api/v1/label/{name}/values"},
			{ID: "prometheus-status", Method: http.MethodGet, Path: "api/v1/status/{what}"},
		} {
			r.Path, r.Tag, r.Right, r.Summary = "prometheus/"+r.Path, "telemetry", rest.BoardsRead, "The query API of Prometheus, for Grafana and its like"
			h.door.Raw(r, func(op *huma.Operation) {
				op.Parameters = nil
				for _, name := range []string{"endpoint", "name", "what"} {
					if strings.Contains(r.Path, "{"+name+"}") {
						op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
					}
				}
				op.Description = "Answers and errors are those of Prometheus."
				for _, status := range []string{"200", "400", "422", "503"} {
					op.Responses[status] = &huma.Response{Description: "As Prometheus answers", Content: anything}
				}
			}, handler)
		}
	}
	if cfg.Targets != nil {
		// It tells of all boards: a caller who is limited to some is turned away.
		h.door.Raw(door.Route{
			ID: "list-targets", Method: http.MethodGet, Path: "targets", Tag: "telemetry", Right: rest.BoardsRead, Whole: true,
			Summary: "Boards as Prometheus' HTTP service discovery takes them",
		}, func(op *huma.Operation) {
			op.Responses["200"] = &huma.Response{Description: "Targets", Content: anything}
		}, raw(cfg.Targets))
	}
}

// Problem writes an error of the enrolment of boards, whose codes are words that boards
// know (schema).
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
