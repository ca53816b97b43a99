// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package alerts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/alerts/hooks"
	"fulmar/fleet/audit"
	"fulmar/fleet/query"
	"fulmar/fleet/registry/alertrows"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// world is a fleet that a test changes.
type world struct {
	mu      sync.Mutex
	boards  []web.Board
	samples []Sample
	err     error
}

func (x *world) overview(_ context.Context, tenant string) (*web.Overview, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if tenant != "default" {
		return &web.Overview{At: time.Now()}, nil
	}
	return &web.Overview{At: time.Now(), Boards: slices.Clone(x.boards)}, x.err
}

func (x *world) instant(_ context.Context, _, expr string, _ time.Time) ([]Sample, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if strings.Contains(expr, "((") {
		return nil, errors.New("unexpected (")
	}
	return slices.Clone(x.samples), x.err
}

// set makes boards 0 to n-1 of a site be in a state; others stay.
func (x *world) set(site string, n int, s web.State, cause string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range n {
		b := web.Board{Name: fmt.Sprintf("%s-%04d", site, i), State: s, Cause: cause, Online: s != web.StateUnreachable, Meta: rest.Meta{Site: site}, LastSeen: time.Now()}
		if j := slices.IndexFunc(x.boards, func(o web.Board) bool { return o.Name == b.Name }); j >= 0 {
			x.boards[j] = b
		} else {
			x.boards = append(x.boards, b)
		}
	}
}

func file(t testing.TB) *store.DB {
	t.Helper()
	tenants := `CREATE TABLE tenant (name TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO tenant VALUES ('default'), ('other');`
	db, err := store.OpenFile(filepath.Join(t.TempDir(), "registry.db"), []string{tenants + audit.Schema, alertrows.Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func open(t testing.TB, db *store.DB, x *world, via http.RoundTripper) *Watch {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	h := hooks.New(db, hooks.Config{Log: log, Transport: func(bool) http.RoundTripper { return via }})
	w, err := New(t.Context(), db, h, Config{Overview: x.overview, Instant: x.instant, URL: "https://fleet.example.com", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func as(role rest.Role) access.Caller {
	return access.Caller{Tenant: "default", Who: "m.kern", Rights: role.Rights()}
}

// put makes a rule and switches the built-in ones off, so that it is alone.
func put(t testing.TB, w *Watch, r rest.AlertRule) rest.AlertRule {
	t.Helper()
	for _, b := range builtins() {
		b.Off, b.Version = true, -1
		if _, err := w.PutRule(t.Context(), as(rest.Operator), b); err != nil {
			t.Fatal(err)
		}
	}
	got, err := w.PutRule(t.Context(), as(rest.Operator), r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// evaluate evaluates once and tells states and summaries.
func evaluate(t testing.TB, w *Watch) string {
	t.Helper()
	if err := w.Evaluate(t.Context(), "default"); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range w.Alerts(t.Context(), "default") {
		out = append(out, a.State+" "+a.Summary)
	}
	return strings.Join(out, " | ")
}

// sink takes webhooks.
type sink struct {
	mu   sync.Mutex
	came []string // type and summary
}

func (s *sink) RoundTrip(r *http.Request) (*http.Response, error) {
	b, _ := io.ReadAll(r.Body)
	var m struct {
		Type string
		Data rest.Alert
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.came = append(s.came, m.Type+" "+m.Data.State+" "+m.Data.Summary)
	return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
}

func (s *sink) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.came, " | ")
}

// TestOneUplink: eleven boards behind one dead uplink are one alert, told once, when they
// are away for as long as the rule says; a restart in between changes nothing; once they
// are back it is told that it is over, once.
func TestOneUplink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db, x, s := file(t), &world{}, &sink{}
		x.set("hall-4", 11, web.StateHealthy, "")
		x.set("yard", 3, web.StateHealthy, "")
		w := open(t, db, x, s)
		if _, err := w.PutHook(t.Context(), as(rest.Operator), rest.Webhook{Name: "chat", Kind: rest.HookWebhook, URL: "https://chat.example.com/x", Events: []string{"alert.*"}}); err != nil {
			t.Fatal(err)
		}
		serve := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			if err := w.Run(ctx); err != nil {
				t.Error(err)
			}
			w = open(t, db, x, s) // a new process
		}
		serve(time.Minute)
		x.set("hall-4", 11, web.StateUnreachable, "connection lost")
		serve(6 * time.Minute)
		if got := w.Alerts(t.Context(), "default"); len(got) != 1 || got[0].State != rest.AlertPending || got[0].Count != 11 || s.all() != "" {
			t.Errorf("after 6 minutes: %+v, told %s", got, s.all())
		}
		serve(5 * time.Minute)
		want := "alert.firing firing unreachable for 10 minutes: 11 boards, site hall-4: connection lost"
		got := w.Alerts(t.Context(), "default")
		if len(got) != 1 || got[0].State != rest.AlertFiring || got[0].Count != 11 || len(got[0].Boards) != 11 || s.all() != want {
			t.Fatalf("after 11 minutes: %+v, told %s", got, s.all())
		}
		if d := got[0].Fired.Sub(got[0].Since); d < 10*time.Minute || d > 11*time.Minute {
			t.Errorf("fired after %v", d)
		}
		if l := got[0].Labels; !reflect.DeepEqual(l, map[string]string{"alertname": "fulmar.board-unreachable", "severity": "critical", "site": "hall-4", "cause": "connection lost"}) {
			t.Errorf("%v", l)
		}
		serve(time.Hour)
		if s.all() != want {
			t.Errorf("told again: %s", s.all())
		}
		x.set("hall-4", 11, web.StateHealthy, "")
		serve(time.Minute)
		if s.all() != want+" | alert.resolved resolved unreachable for 10 minutes: 11 boards, site hall-4: connection lost" {
			t.Errorf("told %s", s.all())
		}
		if got := w.Alerts(t.Context(), "default"); len(got) != 1 || got[0].State != rest.AlertResolved || got[0].Resolved.IsZero() {
			t.Errorf("%+v", got)
		}
		var left int
		if _ = db.Read.QueryRow(`SELECT count(*) FROM alert_member`).Scan(&left); left != 0 {
			t.Errorf("%d boards are still wrong", left)
		}
		serve(25 * time.Hour)
		if got := w.Alerts(t.Context(), "default"); len(got) != 0 {
			t.Errorf("a day later: %+v", got)
		}
	})
}

// TestTurns: boards that are wrong by turns, none for long enough, never fire, although
// one of their group always is.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := &world{}
		x.set("a", 2, web.StateHealthy, "")
		w := open(t, file(t), x, nil)
		put(t, w, rest.AlertRule{ID: "failing", Summary: "failing", Query: "state=failing", For: "5m", By: []string{"site"}})
		for i := range 10 {
			x.mu.Lock()
			x.boards[i%2].State, x.boards[1-i%2].State = web.StateFailing, web.StateHealthy
			x.mu.Unlock()
			for range 4 {
				if got := evaluate(t, w); !strings.HasPrefix(got, "pending failing: a-000") {
					t.Fatalf("round %d: %s", i, got)
				}
				time.Sleep(time.Minute)
			}
		}
		x.set("a", 2, web.StateFailing, "")
		if got := evaluate(t, w); got != "pending failing: 2 boards, site a" {
			t.Error(got)
		}
		time.Sleep(time.Minute) // the one that was failing before is ripe
		if got := evaluate(t, w); got != "firing failing: a-0001, site a" {
			t.Error(got)
		}
		time.Sleep(4 * time.Minute)
		if got := evaluate(t, w); got != "firing failing: 2 boards, site a" {
			t.Error(got)
		}
		x.mu.Lock()
		x.boards = x.boards[:0]
		x.mu.Unlock()
		if got := evaluate(t, w); got != "resolved failing: 2 boards, site a" {
			t.Error(got)
		}
		x.set("a", 1, web.StateFailing, "")
		if got := evaluate(t, w); got != "pending failing: a-0000, site a" {
			t.Error(got)
		}
		x.set("a", 1, web.StateHealthy, "")
		if got := evaluate(t, w); got != "" {
			t.Error(got)
		}
	})
}

// TestSeries: each sample of a PromQL expression is something wrong; a failure to
// evaluate changes nothing and is told.
func TestSeries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := &world{samples: []Sample{
			{map[string]string{"board": "dock-1", "zone": "tj", "__name__": "temp"}, 91},
			{map[string]string{"board": "dock-1", "zone": "gpu"}, 95},
			{map[string]string{"board": "dock-2", "zone": "tj"}, 90},
		}}
		w := open(t, file(t), x, nil)
		rule := put(t, w, rest.AlertRule{ID: "hot", Summary: "hot", Severity: "critical", PromQL: "temp > 90", By: []string{"board"}, Labels: map[string]string{"team": "a"}})
		if got := evaluate(t, w); got != "firing hot: 2 samples, board dock-1 | firing hot: board dock-2" && got != "firing hot: board dock-2 | firing hot: 2 samples, board dock-1" {
			t.Error(got)
		}
		for _, a := range w.Alerts(t.Context(), "default") {
			if a.Labels["board"] == "dock-1" && (*a.Value != 95 || a.Count != 2 || a.Labels["team"] != "a" || len(a.Boards) != 0) {
				t.Errorf("%+v", a)
			}
		}
		x.err = errors.New("the disk is gone")
		if got := evaluate(t, w); strings.Count(got, "firing") != 2 {
			t.Errorf("a failure ended alerts: %s", got)
		}
		if rules, _ := w.Rules(t.Context(), "default"); rules[len(rules)-1].Error != "the disk is gone" {
			t.Errorf("%+v", rules[len(rules)-1])
		}
		x.err, x.samples = nil, nil
		if got := evaluate(t, w); strings.Count(got, "resolved") != 2 {
			t.Error(got)
		}
		if rules, _ := w.Rules(t.Context(), "default"); rules[len(rules)-1].Error != "" {
			t.Errorf("%+v", rules[len(rules)-1])
		}
		rule.By = nil
		if _, err := w.PutRule(t.Context(), as(rest.Operator), rule); err != nil {
			t.Fatal(err)
		}
		x.samples = []Sample{{map[string]string{"board": "dock-1", "zone": "tj", "__name__": "temp"}, 91}}
		if got := evaluate(t, w); !strings.HasPrefix(got, "firing hot: board dock-1, zone tj | ") {
			t.Error(got)
		}
	})
}

// TestHanging: PromQL that hangs ends with the evaluation's time and says so; rules over
// boards are evaluated all the same, and a sample of any size fits an event.
func TestHanging(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, s := &world{}, &sink{}
		x.set("a", 1, web.StateFailing, "broken")
		w := open(t, file(t), x, s)
		put(t, w, rest.AlertRule{ID: "failing", Summary: "failing", Query: "state = failing"})
		for i := range 20 {
			if _, err := w.PutRule(t.Context(), as(rest.Operator), rest.AlertRule{ID: fmt.Sprint("p", i), Summary: "p", PromQL: "up"}); err != nil {
				t.Fatal(err)
			}
		}
		w.cfg.Instant = func(ctx context.Context, _, _ string, _ time.Time) ([]Sample, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		from := time.Now()
		if got := evaluate(t, w); got != "firing failing: a-0000" {
			t.Error(got)
		}
		if d := time.Since(from); d > lookAll {
			t.Errorf("it took %v", d)
		}
		rules, _ := w.Rules(t.Context(), "default")
		late := 0
		for _, r := range rules {
			switch {
			case r.Error == errLate.Error():
				late++
			case r.PromQL != "" && r.Error != context.DeadlineExceeded.Error():
				t.Errorf("%s: %q", r.ID, r.Error)
			}
		}
		// Three rounds are reached; the fourth begins in the moment in which the time is over.
		if late > 20-3*atOnce || late < 20-4*atOnce {
			t.Errorf("%d were not reached", late)
		}
		big := map[string]string{}
		for i := range 40 {
			big[fmt.Sprintf("l%02d%s", i, strings.Repeat("\x01", 200))] = strings.Repeat("\x01\xff", 5000)
		}
		w.cfg.Instant = func(context.Context, string, string, time.Time) ([]Sample, error) { return []Sample{{big, 1}}, nil }
		if _, err := w.PutHook(t.Context(), as(rest.Operator), rest.Webhook{Name: "chat", Kind: rest.HookWebhook, URL: "https://chat.example.com/x"}); err != nil {
			t.Fatal(err)
		}
		evaluate(t, w)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Queue.Run(ctx); err != nil || strings.Count(s.all(), "alert.firing") != 20 {
			t.Errorf("%d events, %v", strings.Count(s.all(), "alert.firing"), err)
		}
	})
}

// TestBoundsOfAnEvaluation: too many groups are cut and it is told; boards are looked at
// for each tenant apart; a rule that is removed ends its alerts.
func TestBoundsOfAnEvaluation(t *testing.T) {
	t.Parallel()
	x := &world{}
	x.set("a", maxAlerts+5, web.StateFailing, "broken")
	w := open(t, file(t), x, nil)
	rule := put(t, w, rest.AlertRule{ID: "each", Summary: "failing", Query: "state = failing"})
	evaluate(t, w)
	first := w.Alerts(t.Context(), "default")
	evaluate(t, w)
	if second := w.Alerts(t.Context(), "default"); len(first) != maxAlerts || !reflect.DeepEqual(first, second) {
		t.Errorf("%d alerts, then %d", len(first), len(second))
	}
	if rules, _ := w.Rules(t.Context(), "default"); rules[len(rules)-1].Error != "it gives 1005 alerts, 1000 are kept; group them with by" {
		t.Errorf("%+v", rules[len(rules)-1])
	}
	if err := w.Evaluate(t.Context(), "other"); err != nil || len(w.Alerts(t.Context(), "other")) != 0 {
		t.Errorf("another tenant has alerts: %v", err)
	}
	if err := w.RemoveRule(t.Context(), as(rest.Operator), rule.ID); err != nil {
		t.Fatal(err)
	}
	evaluate(t, w)
	if got := w.Alerts(t.Context(), "default"); got[0].State != rest.AlertResolved {
		t.Errorf("%+v", got[0])
	}
	var left int
	if _ = w.db.Read.QueryRow(`SELECT count(*) FROM alert_member`).Scan(&left); left != 0 {
		t.Errorf("%d members stay of a rule that was removed", left)
	}
}

// TestBuiltIns: each built-in rule finds the board that it is for, and none finds one that
// is well.
func TestBuiltIns(t *testing.T) {
	t.Parallel()
	now := time.Now()
	well := web.Board{
		Name: "well", State: web.StateHealthy, Online: true, Trust: &web.Trust{Until: now.Add(60 * 24 * time.Hour)},
		Reports: []web.Report{{Subject: "worker", State: "ok"}, {Subject: "model/a", State: "running"}}, Latest: []web.Reading{{Series: "mount.root.used_percent", Value: 60}},
		Gaps: []web.Gap{{At: now, Count: 5, Reason: schema.ReasonCrash.String()}, {At: now.Add(-2 * time.Hour), Count: 5, Reason: schema.ReasonQuota.String()}},
	}
	ill := map[string]func(*web.Board){
		"board-unreachable": func(b *web.Board) { b.State, b.Online = web.StateUnreachable, false },
		"board-failing":     func(b *web.Board) { b.State = web.StateFailing },
		"sees-nothing": func(b *web.Board) {
			b.Reports = []web.Report{{Subject: "camera/cam0", Severity: schema.SeverityAlarm}}
			b.State = web.StateFailing
		},
		"disk-full": func(b *web.Board) { b.Latest = []web.Reading{{Series: "mount.data.used_percent", Value: 91}} },
		"records-lost": func(b *web.Board) {
			b.Gaps = []web.Gap{{At: now.Add(-time.Minute), Count: 5, Reason: schema.ReasonQuota.String()}}
		},
		"certificate-ends": func(b *web.Board) { b.Trust = &web.Trust{Until: now.Add(6 * 24 * time.Hour)} },
	}
	rules := builtins()
	if len(rules) != len(ill) {
		t.Errorf("%d rules, %d are tried", len(rules), len(ill))
	}
	for _, r := range rules {
		if got, err := inBoards(&r, &web.Overview{At: now, Boards: []web.Board{well}}); err != nil || len(got) != 0 {
			t.Errorf("%s finds a board that is well: %v", r.ID, err)
		}
		for name, change := range ill {
			b := well
			change(&b)
			got, err := inBoards(&r, &web.Overview{At: now, Boards: []web.Board{b}})
			if want := builtIn+name == r.ID; err != nil || (len(got) == 1) != want {
				t.Errorf("%s finds a board with %s: %v, %v", r.ID, name, len(got) == 1, err)
			}
		}
		w := &Watch{}
		if err := w.check(t.Context(), "default", &r); err != nil {
			t.Errorf("%s: %v", r.ID, err)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	x := &world{}
	w := open(t, file(t), x, nil)
	good := rest.AlertRule{ID: "hot", Summary: "hot", Query: "temp.tj>85", For: "1m", By: []string{"site", "label.line"}}
	got, err := w.PutRule(t.Context(), as(rest.Operator), good)
	if err != nil || got.Version != 1 || got.Query != "temp.tj > 85" || got.Severity != rest.SeverityWarning {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := w.PutRule(t.Context(), as(rest.Operator), good); !errors.Is(err, ErrStale) {
		t.Errorf("made twice: %v", err)
	}
	if again, err := w.PutRule(t.Context(), as(rest.Operator), got); err != nil || again.Version != 2 {
		t.Errorf("%+v, %v", again, err)
	}
	limited := as(rest.Admin)
	limited.Boards = "site = a"
	for _, by := range []access.Caller{as(rest.Viewer), limited} {
		_, err := w.PutRule(t.Context(), by, got)
		if !errors.Is(err, access.ErrNotAllowed) || !errors.Is(w.RemoveRule(t.Context(), by, "hot"), access.ErrNotAllowed) {
			t.Error(err)
		}
	}
	other := as(rest.Admin)
	other.Tenant = "other"
	if err := w.RemoveRule(t.Context(), other, "hot"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	built := builtins()[0]
	built.Query = "state = failing"
	if _, err := w.PutRule(t.Context(), as(rest.Admin), built); !errors.Is(err, ErrInvalid) {
		t.Errorf("a built-in rule was changed: %v", err)
	}
	built = builtins()[0]
	built.Off = true
	if _, err := w.PutRule(t.Context(), as(rest.Operator), built); err != nil {
		t.Error(err)
	}
	// An older release kept another query of it.
	if _, err := w.db.Write.Exec(`UPDATE alert_rule SET body = replace(body, 'state = unreachable', 'dock') WHERE id = ?`, built.ID); err != nil {
		t.Fatal(err)
	}
	if rs, err := w.Rules(t.Context(), "default"); err != nil || !rs[0].Off || rs[0].Version != 1 || rs[0].Query != builtins()[0].Query || rs[1].Off || rs[len(rs)-1].ID != "hot" {
		t.Errorf("%+v, %v", rs, err)
	}
	if rs, _ := w.Rules(t.Context(), "other"); rs[0].Off || len(rs) != len(builtins()) {
		t.Error("another tenant's rules changed")
	}
	for _, id := range []string{builtIn + "mine", built.ID} {
		if err := w.RemoveRule(t.Context(), as(rest.Admin), id); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	}
	var wrong *query.Error
	for want, change := range map[string]func(*rest.AlertRule){
		"id: wants":           func(r *rest.AlertRule) { r.ID = "Hot stuff" },
		"id: names that":      func(r *rest.AlertRule) { r.ID = "fulmar.mine" },
		"summary":             func(r *rest.AlertRule) { r.Summary = "a\n" },
		"severity":            func(r *rest.AlertRule) { r.Severity = "page" },
		"for":                 func(r *rest.AlertRule) { r.For = "-1s" },
		"for: wants":          func(r *rest.AlertRule) { r.For = "200h" },
		"q: wants either":     func(r *rest.AlertRule) { r.PromQL = "up" },
		"q: wants":            func(r *rest.AlertRule) { r.Query = "" },
		"q: matches every":    func(r *rest.AlertRule) { r.Query = " " },
		"did you mean state?": func(r *rest.AlertRule) { r.Query = "stat = failing" },
		"by: at most":         func(r *rest.AlertRule) { r.By = make([]string, 6) },
		"by: only fields":     func(r *rest.AlertRule) { r.By = []string{"seen"} },
		"by: query, column 1": func(r *rest.AlertRule) { r.By = []string{"nosuch"} },
		"by: wants names":     func(r *rest.AlertRule) { r.Query, r.PromQL, r.By = "", "up", []string{"a.b"} },
		"promql: cannot":      func(r *rest.AlertRule) { r.Query, r.PromQL, r.By = "", "up((", nil },
		"promql: 4097":        func(r *rest.AlertRule) { r.Query, r.PromQL, r.By = "", strings.Repeat("a", 4097), nil },
		"labels: a name":      func(r *rest.AlertRule) { r.Labels = map[string]string{"alertname": "x"} },
		"labels: a name is":   func(r *rest.AlertRule) { r.Labels = map[string]string{"9a": "x"} },
	} {
		r := good
		r.ID = "new"
		change(&r)
		_, err := w.PutRule(t.Context(), as(rest.Admin), r)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("wants %q: %v", want, err)
		}
		if errors.As(err, &wrong) != (strings.Contains(want, "did you") || strings.Contains(want, "column")) {
			t.Errorf("%v", err)
		}
	}
	w.cfg.Instant = nil
	if _, err := w.PutRule(t.Context(), as(rest.Admin), rest.AlertRule{ID: "p", Summary: "p", PromQL: "up"}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for i := len(builtins()) + 1; i < maxRules; i++ {
		if _, err := w.PutRule(t.Context(), as(rest.Operator), rest.AlertRule{ID: fmt.Sprint("r", i), Summary: "x", Query: "dock"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.PutRule(t.Context(), as(rest.Operator), rest.AlertRule{ID: "more", Summary: "x", Query: "dock"}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
}

// BenchmarkEvaluate evaluates the built-in rules over 10,000 boards, all well.
func BenchmarkEvaluate(b *testing.B) {
	x := &world{}
	for i := range 10_000 {
		x.boards = append(x.boards, web.Board{Name: fmt.Sprintf("dock-%05d", i), State: web.StateHealthy, Online: true})
	}
	w := open(b, file(b), x, nil)
	for b.Loop() {
		if err := w.Evaluate(b.Context(), "default"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOutage is the evaluation that finds 10,000 boards of 100 sites unreachable, with
// its commit.
func BenchmarkOutage(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		x := &world{}
		for i := range 10_000 {
			x.boards = append(x.boards, web.Board{Name: fmt.Sprintf("dock-%05d", i), State: web.StateUnreachable, Cause: "connection lost", Meta: rest.Meta{Site: fmt.Sprint("hall-", i%100)}})
		}
		w := open(b, file(b), x, nil)
		b.StartTimer()
		if err := w.Evaluate(b.Context(), "default"); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if n := len(w.Alerts(b.Context(), "default")); n != 100 {
			b.Fatal(n)
		}
		b.StartTimer()
	}
}
