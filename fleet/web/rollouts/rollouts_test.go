// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
	"fulmar/fleet/web/form"
	"fulmar/fleet/web/live"
	"fulmar/fleet/web/rollouts/planform"
	"fulmar/schema/rest"
)

// door lets everybody in: the cookie names who, and in which role.
type door struct{ web.Auth }

func (door) Session(r *http.Request) (web.Session, bool) {
	c, err := r.Cookie("who")
	if err != nil {
		return web.Session{}, false
	}
	user, role, _ := strings.Cut(c.Value, ":")
	return web.Session{Tenant: "main", User: user, Role: rest.Role(role)}, true
}

// site is the page with rollouts in it.
type site struct {
	t *testing.T
	h *web.Handler
	b *books
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, b: newBooks(time.Now())}
	var err error
	if s.h, err = web.New(web.Config{Zone: time.UTC, Pages: Pages(Config{Rollouts: s.b, Problem: problem, Count: counted})}, door{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// counted is a fleet whose only site is hall-4.
func counted(_ context.Context, _ access.Caller, q string) (rest.QueryCheck, error) {
	switch {
	case strings.Contains(q, "hall4"):
		return rest.QueryCheck{Column: 6, What: "no site is called hall4", Do: "did you mean hall-4?"}, nil
	case q == "":
		return rest.QueryCheck{Count: 1014}, nil
	}
	return rest.QueryCheck{Count: 1000}, nil
}

func (s *site) ask(who, method, target, kind string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(s.t.Context(), method, target, bytes.NewReader(body))
	r.Header.Set("Accept", "text/html")
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	r.AddCookie(&http.Cookie{Name: "who", Value: who})
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	return w
}

func (s *site) get(target string) *httptest.ResponseRecorder {
	return s.ask("m.kern:releaser", http.MethodGet, target, "", nil)
}

func (s *site) post(who, target string, v url.Values) *httptest.ResponseRecorder {
	return s.ask(who, http.MethodPost, target, "application/x-www-form-urlencoded", []byte(v.Encode()))
}

// plan posts the form of a plan as a browser does.
func (s *site) plan(who string, v url.Values, manifest []byte) *httptest.ResponseRecorder {
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for k, list := range v {
		for _, x := range list {
			_ = m.WriteField(k, x)
		}
	}
	if manifest != nil {
		p, _ := m.CreateFormFile("manifest", "release.json")
		_, _ = p.Write(manifest)
	}
	_ = m.Close()
	return s.ask(who, http.MethodPost, "/rollouts/new", m.FormDataContentType(), b.Bytes())
}

func TestHeadline(t *testing.T) {
	t.Parallel()
	now := fixed()
	b := newBooks(now)
	slices.SortStableFunc(b.list, func(a, b rest.Rollout) int { return b.Created.Compare(a.Created) })
	if got, want := headline(b.list, now), "1 halted, 1 waits for approval, 1 waits for you, 1 running (wave 2 of 3, done about Mon 06:02), 1 planned"; got != want {
		t.Errorf("headline\n got %q\nwant %q", got, want)
	}
	if got := headline(nil, now); got != "No rollouts yet" {
		t.Errorf("none: %q", got)
	}
	good := rest.Rollout{ID: "r-99", State: done, Over: true, Spec: rest.RolloutSpec{Component: "model/forklift"}}
	all := []rest.Rollout{good}
	for _, r := range b.list {
		if r.ID == "r-31" {
			all = append(all, r)
		}
	}
	if got := headline(all, now); got != "Nothing is under way; 2 rollouts have ended" {
		t.Errorf("a halt that a good rollout of the same model has followed still counts: %q", got)
	}
}

func TestInequality(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    rest.Verdict
		want string
	}{
		{rest.Verdict{Outcome: "bad", Policy: "interval", Gate: 0.995, Good: 17, Failed: 3, Value: 0.85, Upper: 0.9578, Lower: 0.656}, "17 of 20 good: at best 95.8\u00a0% of all boards would be good, and the gate asks for 99.5\u00a0%. Below it for sure."},
		{rest.Verdict{Outcome: "good", Policy: "interval", Gate: 0.995, Good: 20, Value: 1, Upper: 1, Lower: 0.861}, "20 of 20 good is 100\u00a0%, the gate asks for 99.5\u00a0%: good enough to go on. It proves that at least 86.1\u00a0% of all boards are good, no more."},
		{rest.Verdict{Outcome: "unclear", Policy: "interval", Gate: 0.995, Good: 8, Failed: 1, Value: 0.888, Upper: 0.9943, Lower: 0.5709}, "8 of 9 good may be anything from 57.1\u00a0% to 99.4\u00a0% of all boards. Below the gate of 99.5\u00a0%, by too few failures to halt: not enough boards to tell."},
		{rest.Verdict{Outcome: "unclear", Policy: "interval", Gate: 0.995, Good: 19, Failed: 1, Value: 0.95, Upper: 0.9974, Lower: 0.784}, "19 of 20 good may be anything from 78.4\u00a0% to 99.74\u00a0% of all boards; the gate of 99.5\u00a0% lies between. Not enough boards to tell."},
		{rest.Verdict{Outcome: "bad", Policy: "point", Gate: 0.995, Good: 993, Failed: 7, Value: 0.993, Upper: 0.996}, "993 of 1,000 good is 99.3\u00a0%; the gate asks for 99.5\u00a0%: below it."},
		{rest.Verdict{Outcome: "bad", Policy: "interval", Gate: 0.995, Good: 20, Value: 1, Upper: 1}, "20 of 20 good, and something else speaks against it: see below."},
		{rest.Verdict{Outcome: "unclear", Policy: "interval", Gate: 0.995}, "No board of the wave has ended yet: nothing to tell."},
	} {
		if got := inequality(&c.v); got != c.want {
			t.Errorf("%+v\n got %q\nwant %q", c.v, got, c.want)
		}
	}
}

// TestPicture: the picture holds what the figures say, within its frame.
func TestPicture(t *testing.T) {
	t.Parallel()
	p := draw(&rest.Verdict{Outcome: "bad", Gate: 0.995, Good: 17, Failed: 3, Value: 0.85, Upper: 0.9578, Lower: 0.656})
	if p.Floor != "50.0\u00a0%" || p.Lower != "31.952%" || p.Gate != "97.040%" || p.GateAnchor != "end" || p.SeenAnchor != "middle" || p.Tone != "failing" {
		t.Errorf("%+v", p)
	}
	if p := draw(&rest.Verdict{Outcome: "good", Gate: 0.995, Good: 598, Value: 1, Upper: 1, Lower: 0.9950}); p.Floor != "99.0\u00a0%" || p.Seen != "98.000%" {
		t.Errorf("near one: %+v", p)
	}
	if p := draw(&rest.Verdict{Outcome: "bad", Gate: 0.995, Failed: 3, Upper: 0.63}); p.Floor != "0.0\u00a0%" || p.Seen != "2.000%" || p.SeenAnchor != "start" {
		t.Errorf("all failed: %+v", p)
	}
	if draw(&rest.Verdict{}) != nil || draw(nil) != nil {
		t.Error("a picture of nothing")
	}
}

// TestOne: the page says what is in the data, all of it, and the parts in the order that
// reads well.
func TestOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.get("/rollouts/r-31")
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	last := 0
	for _, want := range []string{
		"forklift-v7 was halted, wave 1 of 3", "Halted in wave 1: 3 of 20 failed; the gate is 99.5 %, this is 95.8 % at best; 980 boards untouched.",
		"fulmar rollout retry r-31 --without &#39;dla=on&#39;", "approved by a.wolff", "at best 95.8\u00a0% of all boards would be good",
		"at least 65.6\u00a0%, at best 95.8\u00a0%", "no worse", "worse", "none sent", "too few to tell",
		"All 3 are Orin NX 8GB with DLA on", "2 boards</b>: the worker crashed three times: CUDA error 700 in Conv_212", `<a href="/boards/dock-0017">dock-0017</a>`,
		"16 boards run what they ran before; 1 has not confirmed and needs you.", "What you can do", "Take it back", "Try again", "A second person has to approve it",
		"Wave 1", "never reached</b> and count neither as good nor as failed", "they run this release already", "Boards", "dock-0003", "What happened", "Earlier attempts", "wrong camera profile", "The plan", "22:00 to 05:00",
	} {
		i := strings.Index(w.Body.String()[last:], want)
		if i < 0 {
			t.Errorf("%q is not there, or not in its place", want)
			continue
		}
		last += i
	}
}

// TestOrder: the safe button comes first, and who looks on has none.
func TestOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	page := s.get("/rollouts/r-34").Body.String()
	if back, on := strings.Index(page, `value="rollback"`), strings.Index(page, `value="resume"`); back < 0 || on < back {
		t.Errorf("taking back at %d, going on at %d", back, on)
	}
	if page := s.ask("v:viewer", http.MethodGet, "/rollouts/r-34", "", nil).Body.String(); strings.Contains(page, `name="do"`) || !strings.Contains(page, "You look on") {
		t.Error("a viewer gets buttons")
	}
	if page := s.get("/rollouts/r-33").Body.String(); strings.Contains(page, `value="approve"`) || !strings.Contains(page, "Not you: you planned or started it.") {
		t.Error("whoever planned it may approve it")
	}
	if page := s.ask("a.wolff:releaser", http.MethodGet, "/rollouts/r-33", "", nil).Body.String(); !strings.Contains(page, `value="approve"`) {
		t.Error("a second person cannot approve it")
	}
}

func TestAct(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if w := s.post("m.kern:releaser", "/rollouts/r-32", url.Values{"do": {"pause"}, "version": {"14"}}); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/rollouts/r-32" {
		t.Fatalf("pause: %d %s", w.Code, w.Body)
	}
	w := s.post("m.kern:releaser", "/rollouts/r-32", url.Values{"do": {"abort"}, "version": {"14"}, "why": {"a <b> & c"}})
	if w.Code != http.StatusPreconditionFailed || !strings.Contains(w.Body.String(), "Somebody changed it meanwhile") || !strings.Contains(w.Body.String(), `value="a &lt;b&gt; &amp; c"`) || !strings.Contains(w.Body.String(), `id="act-abort" open`) {
		t.Errorf("a stale form: %d", w.Code)
	}
	for _, bad := range []url.Values{
		{"do": {"explode"}, "version": {"15"}},
		{"do": {"abort"}, "version": {"x"}},
		{"do": {"abort"}},
		{"do": {"rollback"}, "version": {"15"}, "scope": {"world"}},
		{"do": {"abort"}, "version": {"15"}, "why": {strings.Repeat("x", 600)}},
		{"do": {"abort"}, "version": {"15"}, "why": {"two\nlines"}},
	} {
		if w := s.post("m.kern:releaser", "/rollouts/r-32", bad); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%v: %d", bad, w.Code)
		}
	}
	if w := s.post("m.kern:releaser", "/rollouts/r-33", url.Values{"do": {"approve"}, "version": {"2"}}); w.Code != http.StatusForbidden {
		t.Errorf("the author approves: %d", w.Code)
	}
	if w := s.post("m.kern:releaser", "/rollouts/r-77", url.Values{"do": {"pause"}, "version": {"1"}}); w.Code != http.StatusNotFound {
		t.Errorf("none: %d", w.Code)
	}
	if w := s.post("m.kern:releaser", "/rollouts/r-32", url.Values{"do": {"pause"}, "why": {strings.Repeat("x", form.Max)}}); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a form over its bound: %d", w.Code)
	}
	if want := []string{"pause r-32 by m.kern without= only= scope= why="}; !slices.Equal(s.b.did, want) {
		t.Errorf("done: %q", s.b.did)
	}
}

// TestPlan: nothing is made before it was played through as it stands.
func TestPlan(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	v := url.Values{
		"do": {"create"}, "component": {"agent"}, "release": {"1.8.2"}, "query": {"site=hall-4"}, "w0size": {"2 %"}, "w0soak": {"10"}, "w1size": {"100"}, "w1pause": {"1"}, "w2size": {"rest"},
		"gate": {"99,5"}, "v0from": {"22:00"}, "v0to": {"05:00"}, "v0days": {"Mon, tue"}, "approval": {"1"}, "per_site": {"3"}, "bytes": {"6.1"}, "after": {"r-1, r-2"},
		"g0name": {"latency"}, "g0expr": {`avg by (board) (fulmar_latency_ms{model="a<b"})`}, "g0tolerance": {"20"}, "behind": {"https://hooks.example/x"},
	}
	w := s.plan("m.kern:releaser", v, []byte("signed"))
	page := w.Body.String()
	if w.Code != http.StatusOK || len(s.b.made) != 0 || !strings.Contains(page, "nothing was made") {
		t.Fatalf("made without a forecast: %d, %d made", w.Code, len(s.b.made))
	}
	for _, want := range []string{"1,000 boards in 3 waves", "20 of 20: at least 86.1 %", "run this release already", "14 boards", "Sun 22:02", "Wave 2: which boards", "and 820 more"} {
		if want != "Sun 22:02" && !strings.Contains(page, want) {
			t.Errorf("the forecast does not say %q", want)
		}
	}
	seen := page[strings.Index(page, `name="seen" value="`)+len(`name="seen" value="`):]
	v.Set("seen", seen[:16])
	v.Set("envelope", "c2lnbmVk")
	changed := url.Values{}
	for k, x := range v {
		changed[k] = x
	}
	changed["query"] = []string{"site=hall-5"}
	if s.plan("m.kern:releaser", changed, nil); len(s.b.made) != 0 {
		t.Fatal("another plan than the one that was played through was made")
	}
	if w := s.plan("m.kern:releaser", v, nil); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/rollouts/r-41" || len(s.b.made) != 1 {
		t.Fatalf("%d %q, %d made", w.Code, w.Header().Get("Location"), len(s.b.made))
	}
	got, _ := json.Marshal(s.b.made[0])
	want := `{"component":"agent","release":"1.8.2","query":"site=hall-4","unreachable":"later","waves":[{"percent":2,"soak_s":600,"unclear":"wait"},{"count":100,"soak_s":600,"pause":true,"unclear":"wait"},{"percent":100,"soak_s":600,"unclear":"wait"}],` +
		`"gate":{"policy":"interval","gate":0.995,"min_failures":2,"min_answered":0.5},"guards":[{"name":"latency","expr":"avg by (board) (fulmar_latency_ms{model=\"a\u003cb\"})","better":"lower","tolerance":0.2}],"windows":[{"days":["mon","tue"],"from":"22:00","to":"05:00"}],` +
		`"per_site":3,"bytes":6100000,"approval":true,"after":["r-1","r-2"],"behind":{"url":"https://hooks.example/x"},"undo":"wave","limits":{"install_s":7200,"trial_s":900,"wave_s":86400}}`
	if string(got) != want {
		t.Errorf("made\n got %s\nwant %s", got, want)
	}
}

// TestPlanRefused: what is wrong stands beside its field, and what was typed stays.
func TestPlanRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	good := func(k, x string) url.Values {
		v := url.Values{"do": {"forecast"}, "component": {"agent"}, "release": {"1.8.2"}, "w0size": {"2 %"}, "w1size": {"rest"}}
		v.Set(k, x)
		return v
	}
	for _, c := range []struct{ field, value, says string }{
		{"component", "", "This is needed."},
		{"component", "an agent", "Wants agent, worker, config, rootfs or model/NAME."},
		{"query", "site=hall4", "did you mean hall-4 (1,014 boards)?"},
		{"query", strings.Repeat("x", 1025), "Too long"},
		{"gate", "1000", "A number from 0.1 to 100."},
		{"gate", "NaN", "A number from"},
		{"w0size", "none", "A number from"},
		{"w0size", "rest", "Only the last wave takes the rest"},
		{"w0soak", "-1", "A number from"},
		{"w0unclear", "guess", "Choose one of the list."},
		{"min_failures", "1.5", "A whole number."},
		{"v0from", "22:00", "This is needed."},
		{"g0name", "latency", "This is needed."},
		{"release", "a\x00b", "One line of plain text"},
		{"release", "<script>alert(1)</script>", ""},
	} {
		w := s.plan("m.kern:releaser", good(c.field, c.value), nil)
		if c.says == "" {
			if strings.Contains(w.Body.String(), c.value) {
				t.Errorf("%s: %q came back as it was", c.field, c.value)
			}
			continue
		}
		if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), c.says) || !strings.Contains(w.Body.String(), `aria-invalid="true"`) {
			t.Errorf("%s=%.40q: %d, wants %q", c.field, c.value, w.Code, c.says)
		}
	}
	if w := s.plan("m.kern:releaser", good("query", "busy"), nil); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "100 boards are left out: in another rollout of this component: r-32.") {
		t.Errorf("no board is left, and the page does not say why: %d", w.Code)
	}
	if w := s.plan("m.kern:releaser", good("name", "n"), bytes.Repeat([]byte("x"), planform.MaxForm)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body over its bound: %d", w.Code)
	}
	if len(s.b.made) != 0 {
		t.Error("something was made")
	}
}

// TestRoles holds each route to each role.
func TestRoles(t *testing.T) {
	t.Parallel()
	form := url.Values{"do": {"pause"}, "version": {"14"}}
	for _, c := range []struct {
		method, path string
		may          map[rest.Role]bool
	}{
		{http.MethodGet, "/rollouts", map[rest.Role]bool{rest.Viewer: true, rest.Operator: true, rest.Releaser: true, rest.Admin: true}},
		{http.MethodGet, "/rollouts/r-32", map[rest.Role]bool{rest.Viewer: true, rest.Operator: true, rest.Releaser: true, rest.Admin: true}},
		{http.MethodGet, "/rollouts/count?q=a", map[rest.Role]bool{rest.Viewer: true, rest.Operator: true, rest.Releaser: true, rest.Admin: true}},
		{http.MethodGet, "/rollouts/new", map[rest.Role]bool{rest.Releaser: true, rest.Admin: true}},
		{http.MethodPost, "/rollouts/new", map[rest.Role]bool{rest.Releaser: true, rest.Admin: true}},
		{http.MethodPost, "/rollouts/r-32", map[rest.Role]bool{rest.Releaser: true, rest.Admin: true}},
	} {
		for _, role := range append(rest.Roles(), "nobody", "") {
			s := newSite(t)
			w := s.ask("x:"+string(role), c.method, c.path, "application/x-www-form-urlencoded", []byte(form.Encode()))
			if got := w.Code != http.StatusForbidden; got != c.may[role] {
				t.Errorf("%s %s as %q: %d", c.method, c.path, role, w.Code)
			}
			if !c.may[role] && len(s.b.did)+len(s.b.made) > 0 {
				t.Errorf("%s %s as %q did %v", c.method, c.path, role, s.b.did)
			}
		}
		s := newSite(t)
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, http.NoBody)
		w := httptest.NewRecorder()
		if s.h.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
			t.Errorf("%s %s without a session: %d", c.method, c.path, w.Code)
		}
		if c.method == http.MethodPost {
			r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.AddCookie(&http.Cookie{Name: "who", Value: "x:admin"})
			w := httptest.NewRecorder()
			if s.h.ServeHTTP(w, r); w.Code != http.StatusForbidden || len(s.b.did) > 0 {
				t.Errorf("%s from another site: %d %v", c.path, w.Code, s.b.did)
			}
		}
	}
	s := newSite(t)
	if page := s.ask("x:viewer", http.MethodGet, "/rollouts", "", nil).Body.String(); strings.Contains(page, "/rollouts/new") || strings.Contains(page, ">Audit<") {
		t.Error("a viewer is shown what they may not do")
	}
}

func TestNotThere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, u := range []string{"/rollouts/r-77", "/rollouts/" + strings.Repeat("r", 100), "/rollouts/r-32/nothing"} {
		if w := s.get(u); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", u, w.Code)
		}
	}
	s.b.err = errors.New("disk on fire: /var/lib/secret")
	if w := s.get("/rollouts"); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "fire") {
		t.Errorf("with a broken store: %d", w.Code)
	}
	s.b.err = nil
	for _, q := range []string{"?wave=%27", "?page=-4", "?page=99999999", "?state=%3Cscript%3E", "?wave=2&state=trial"} {
		if w := s.get("/rollouts/r-32" + q); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "<script>") {
			t.Errorf("%s: %d", q, w.Code)
		}
	}
	if n := strings.Count(s.get("/rollouts/r-32?wave=2&state=trial").Body.String(), `<tr><th scope="row"><a href="/boards/`); n != 6 {
		t.Errorf("%d boards in trial, want 6", n)
	}
	s.b.list = nil
	if page := s.get("/rollouts").Body.String(); !strings.Contains(page, "No rollouts yet") || !strings.Contains(page, "/rollouts/new") {
		t.Error("the empty list leads nowhere")
	}
}

// BenchmarkOne builds the live half of a rollout of 10,000 boards: once a tick for all
// who watch it in one role.
func BenchmarkOne(b *testing.B) {
	now := fixed()
	books := newBooks(now)
	r := &books.list[1]
	var boards []rest.RolloutBoard
	for i, n := range names("dock", 1, 10_000) {
		boards = append(boards, rest.RolloutBoard{Board: n, Site: "hall-4", Wave: 1 + i%3, State: []string{"good", "trial", "installing", "waiting"}[i%4], Since: now, Deadline: &now})
	}
	b.ReportAllocs()
	for b.Loop() {
		one(live.NewSheet(now), r, boards, url.Values{})
	}
}
