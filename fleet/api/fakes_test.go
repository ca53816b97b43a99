// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/api/door"
	"fulmar/fleet/api/look"
	"fulmar/fleet/api/parts"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/idem"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
	"fulmar/schema/rest"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var (
	errStale       = errors.New("another version")
	errSecond      = errors.New("a second person")
	errKey         = errors.New("app.X is no name of a key")
	errSettled     = errors.New("it is not in conflict")
	errWrong       = errors.New("the waves are over 100 percent; give the last one less")
	errSameCommand = errors.New("it was given by operator")
	errForm        = errors.New("the name is none")
	errOpen        = errors.New("too many are open")
)

// town is a fleet that lies in memory: it stands in for all parts of the real one.
type town struct {
	mu     sync.Mutex
	look   *web.Overview
	asked  web.SeriesQuery
	broken error
	calls  []string // changes that were made
	slow   chan struct{}
	tokens []rest.Token
	roll   rest.Rollout
	rule   rest.AlertRule
	hook   rest.Webhook
	meta   rest.Meta
}

func newTown(boards ...web.Board) *town {
	if boards == nil {
		boards = []web.Board{
			{
				Name: "b1", State: web.StateUnreachable, Cause: "nothing heard", Since: noon.Add(-time.Hour), LastSeen: noon.Add(-time.Hour), Release: "1.8.0",
				KeyMode: "software", Facts: map[string]string{"model": "test"}, Trust: &web.Trust{How: "software", Fingerprint: "3f0c61a2b94de805", Enrolled: noon, Until: noon.Add(time.Hour)},
				Latest: []web.Reading{{Series: "x", Value: 1, At: noon}}, Reports: []web.Report{}, Cameras: []web.Camera{},
				Ledger: []web.Ledger{{
					Class: "metric", Epochs: 1, Made: 1816, Arrived: 300, Lost: 312, Waiting: 1204,
					Reasons: map[string]uint64{"disk full": 312}, Oldest: noon.Add(-2 * time.Hour),
				}},
				Gaps: []web.Gap{{Class: "metric", First: 301, Last: 612, Count: 312, Reason: "disk full", From: noon.Add(-10 * time.Hour), To: noon.Add(-9 * time.Hour), At: noon.Add(-9 * time.Hour)}},
			},
			{Name: "new", State: web.StateNeverHeard},
		}
	}
	return &town{
		look:   &web.Overview{At: noon, Boards: boards},
		tokens: []rest.Token{{ID: "t1", Name: "line-4", By: "admin", Rights: rest.Viewer.Rights(), Expires: noon}, {ID: "t2", Name: "mine", By: "viewer", Expires: noon}},
		roll: rest.Rollout{
			ID: "r-1", Version: 3, State: "planned", Since: noon, Created: noon, Sentence: "It waits.", Author: "releaser", Waves: []rest.Wave{}, Counts: map[string]int{},
			Actions: []string{"start", "abort"}, Spec: rest.RolloutSpec{Component: "agent", Release: "1.9.0"},
		},
		rule: rest.AlertRule{ID: "hot", Summary: "too hot", Severity: "warning", Query: "b1", Version: 2},
		hook: rest.Webhook{ID: "w1", Name: "pager", URL: "https://pager.example/x", Kind: "webhook", Version: 5},
		meta: rest.Meta{Site: "hall-4", Version: 7},
	}
}

// called notes a change, and gives the town's trouble.
func (t *town) called(format string, args ...any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken == nil {
		t.calls = append(t.calls, fmt.Sprintf(format, args...))
	}
	return t.broken
}

func (t *town) done() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls)
}

func (t *town) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = nil
}

func (t *town) Overview(_ context.Context, tenant string) (*web.Overview, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tenant != "default" {
		return &web.Overview{At: noon, Boards: []web.Board{}}, t.broken
	}
	return t.look, t.broken
}

// change replaces the look by one in which things are different.
func (t *town) change(fn func(boards []web.Board) []web.Board) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.look = &web.Overview{At: t.look.At.Add(time.Second), Boards: fn(slices.Clone(t.look.Boards))}
}

func (t *town) Series(_ context.Context, q web.SeriesQuery) ([]web.Series, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = q
	if q.Board != "b1" {
		return nil, web.ErrNotFound
	}
	return []web.Series{{Name: "x", T: []int64{1}, V: []float64{2}, Lo: []float64{1}, Hi: []float64{4}}, {Name: "y", T: []int64{1}, V: []float64{2}}}, t.broken
}

// Detections gives 30 of each board in turn, newest first.
func (t *town) Detections(_ context.Context, q web.DetectionQuery) ([]web.Detection, error) {
	all := []web.Detection{}
	for n := 30; n > 0; n-- {
		for _, b := range []string{"b1", "new"} {
			d := web.Detection{ID: fmt.Sprintf("%s/event/1/%d", b, n), Board: b, At: noon, Timed: "exact", Arrived: noon, HasPicture: n == 30, Event: schema.Event{Source: "cam0", Snapshot: "blob"}}
			if q.ID == d.ID || q.ID == "" && (q.Board == "" || q.Board == b) {
				all = append(all, d)
			}
		}
	}
	if i := slices.IndexFunc(all, func(d web.Detection) bool { return d.ID == q.Before }); i >= 0 {
		all = all[i+1:]
	}
	return all[:min(len(all), q.Limit)], t.broken
}

type picture struct{ *bytes.Reader }

func (picture) Close() error { return nil }

func (t *town) Picture(context.Context, string, string, string) (io.ReadSeekCloser, error) {
	return picture{bytes.NewReader([]byte("\xff\xd8\xff\xe0 a JPEG begins so"))}, t.broken
}

func (t *town) Check(context.Context, string) ([]store.Check, error) {
	return []store.Check{}, t.broken
}

func (t *town) Boards(context.Context, string) ([]registry.Board, error) {
	return []registry.Board{{Name: "b1", Trust: "software", EnrolledAt: noon, NotAfter: noon}, {Name: "new", Trust: "software", EnrolledAt: noon, NotAfter: noon}}, t.broken
}

func (t *town) Pending(context.Context, string) ([]registry.Request, error) {
	return []registry.Request{{ID: 7, Board: "b7", Trust: "software", First: noon, Last: noon}}, t.broken
}

func (t *town) Approve(_ context.Context, tenant string, id int64, who string) error {
	if id == 8 {
		return registry.ErrElsewhere
	}
	if id != 7 {
		return registry.ErrUnknown
	}
	if t.slow != nil {
		<-t.slow
	}
	return t.called("approve %s/%d by %s", tenant, id, who)
}

func (t *town) Refuse(_ context.Context, tenant string, id int64, who string) error {
	if id != 7 {
		return registry.ErrUnknown
	}
	return t.called("refuse %s/%d by %s", tenant, id, who)
}

func (t *town) Revoke(_ context.Context, tenant, board, who, why string) error {
	if board == "full" {
		return registry.ErrTooMany
	}
	return t.called("revoke %s/%s by %s: %s", tenant, board, who, why)
}

func (t *town) Wipe(_ context.Context, tenant, board, who, why string) error {
	if t.slow != nil {
		<-t.slow
	}
	return t.called("wipe %s/%s by %s: %s", tenant, board, who, why)
}

// people lets callers in by their token: the word is a role, or what stands here.
func people(r *http.Request) (access.Caller, error) {
	word, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	c := access.Caller{Tenant: "default", Who: word, Author: word, Rights: rest.Role(word).Rights()}
	switch {
	case !ok || word == "forged":
		return access.Caller{}, ErrNotLoggedIn
	case word == "must-change":
		return access.Caller{}, ErrNotAllowed
	case word == "elsewhere":
		c.Tenant, c.Rights = "other", rest.Admin.Rights()
	case word == "limited":
		c.Rights, c.Boards = rest.Admin.Rights(), "b1"
	case word == "misread":
		c.Rights, c.Boards = rest.Admin.Rights(), "site=?"
	case strings.HasPrefix(word, "viewer-"):
		c.Rights = rest.Viewer.Rights()
	}
	if who := r.Header.Get("Test-Who"); who != "" { // each with a share of requests of its own
		c.Who = who
	}
	return c, nil
}

// parse knows the queries of the tests: a name's beginning, or "any", or "sick".
func parse(q string) (look.Matcher, string, error) {
	if strings.ContainsAny(q, "=?") {
		return nil, "", &look.QueryError{Column: 6, What: "no site is called so", Do: "did you mean hall-4?"}
	}
	return func(b *web.Board, _ time.Time) bool {
		return q == "any" || q == "sick" && b.State != web.StateHealthy || strings.HasPrefix(b.Name, q)
	}, q, nil
}

// known are the town's own errors.
func known() []door.Known {
	return []door.Known{
		{Err: errStale, Code: rest.CodeStale},
		{Err: errSecond, Code: rest.CodeSecondPerson},
		{Err: errKey, Code: rest.CodeTwinKey, Say: true},
		{Err: errSettled, Code: rest.CodeNoConflict, Say: true},
		{Err: errWrong, Code: rest.CodeRefused, Say: true},
		{Err: errSameCommand, Code: rest.CodeCommandSame},
		{Err: errForm, Code: rest.CodeCommandForm, Say: true},
		{Err: errOpen, Code: rest.CodeCommandsOpen},
	}
}

// open serves the API of a town with all its parts.
func open(tb testing.TB, t *town) *Handler {
	tb.Helper()
	return openWith(tb, t, NewHub())
}

func openWith(tb testing.TB, t *town, hub *Hub) *Handler {
	tb.Helper()
	db, err := store.OpenFile(filepath.Join(tb.TempDir(), "r.db"), []string{idem.Schema})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	p := partsOf{t}
	h, err := New(Config{
		Caller: people, Source: t, Hub: hub, Log: slog.New(slog.DiscardHandler), Keys: idem.New(db), Known: known(), Parse: parse,
		Check: t.Check, Keeper: t, Parts: parts.Parts{Metas: p, Rollouts: rolls{t}, Accounts: p, Audit: p, Alerts: p, Hooks: p, Joins: p, Twins: twinsOf{t}, Commands: orders{t}, Releases: stock{t}},
		Prometheus: told("prometheus"), Targets: told("targets"), Within: within,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

type tenantKey struct{}

func within(ctx context.Context, tenant string, seen func(string) bool) context.Context {
	return context.WithValue(ctx, tenantKey{}, fmt.Sprint(tenant, " b1:", seen == nil || seen("b1"), " new:", seen == nil || seen("new")))
}

// told stands for a handler of the telemetry: it tells what it was given.
func told(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "{%q: %q}", name+r.URL.Path, r.Context().Value(tenantKey{}))
	})
}

// ask sends a request; headers are pairs.
func ask(h http.Handler, method, path, token, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/api/v1/"+path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(h http.Handler, path, token string, headers ...string) *httptest.ResponseRecorder {
	return ask(h, http.MethodGet, path, token, "", headers...)
}
