// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// errBroken is what a log answers with whose newest rows do not follow.
var errBroken = errors.New("the rows since 41 do not follow from the signed head")

// book is an audit log in memory.
type book struct {
	mu      sync.Mutex
	list    []rest.AuditEntry // oldest first
	head    rest.AuditHead
	err     error
	headErr error
}

func (b *book) Head(context.Context) (rest.AuditHead, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.head, errors.Join(b.err, b.headErr)
}

// break1 breaks the chain.
func (b *book) break1(where string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.head.Broken = where
}

func (b *book) Entries(_ context.Context, tenant string, after int64, limit int, f rest.AuditFilter) (out []rest.AuditEntry, err error) {
	list := slices.Clone(b.list)
	if f.Newest {
		slices.Reverse(list)
	}
	for _, e := range list {
		past := after == 0 || f.Newest && e.Seq < after || !f.Newest && e.Seq > after
		if past && tenant == "main" && (f.Who == "" || f.Who == e.Who) && (f.What == "" || f.What == e.What) && (f.Board == "" || f.Board == e.Board) &&
			(f.From.IsZero() || !e.At.Before(f.From)) && (f.To.IsZero() || e.At.Before(f.To)) && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, b.err
}

// newBook makes n entries, one an hour, the newest at now.
func newBook(now time.Time, n int) *book {
	b := &book{head: rest.AuditHead{
		Seq: int64(n), Hash: strings.Repeat("9f86d081", 8), At: now.Add(-2 * time.Minute), Signature: "{}", KeyID: strings.Repeat("60303ae2", 8), Rows: int64(n),
		Since: now.Add(-time.Duration(n) * time.Hour), Checked: now.Add(-7 * time.Minute),
	}}
	kinds := []rest.AuditEntry{
		{Who: "m.kern", What: "log-in", Why: "from 192.0.2.7"},
		{Who: "a.wolff", What: "rollout.approve", Why: "r-31: forklift-v7 on 1,000 boards"},
		{Who: "token line-4", What: "command", Board: "dock-0017", Why: "restart worker: done in 4 s"},
		{Who: "board dock-0009", What: "enrol", Board: "dock-0009", Why: "first use, fingerprint fd61a03af4f77d87"},
		{Who: "fleet", What: "rollout.halt", Why: "r-31: 3 of 20 failed; the gate is 99.5 %, this is 95.8 % at best"},
		{Who: "m.kern", What: "revoke", Board: "dock-0002", Why: "stolen"},
		{Who: "m.kern", What: "board.meta", Board: "dock-0003"},
	}
	for i := range n {
		e := kinds[i%len(kinds)]
		e.Seq, e.At, e.Hash = int64(i+1), now.Add(-time.Duration(n-i-1)*time.Hour), fmt.Sprintf("%064x", i)
		b.list = append(b.list, e)
	}
	return b
}

// door lets everybody in: the cookie names the role.
type door struct{ web.Auth }

func (door) Session(r *http.Request) (web.Session, bool) {
	c, err := r.Cookie("role")
	if err != nil {
		return web.Session{}, false
	}
	return web.Session{Tenant: "main", User: "m.kern", Role: rest.Role(c.Value)}, true
}

func newSite(t *testing.T, b *book) *web.Handler {
	t.Helper()
	h, err := web.New(web.Config{Zone: time.UTC, Pages: Pages(Config{Log: b, Command: Command, Broken: func(err error) bool { return errors.Is(err, errBroken) }})}, door{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(t *testing.T, h http.Handler, role, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	r.AddCookie(&http.Cookie{Name: "role", Value: role})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestLog(t *testing.T) {
	t.Parallel()
	b := newBook(time.Now(), 120)
	h := newSite(t, b)
	page := ask(t, h, "operator", http.MethodGet, "/audit").Body.String()
	since := b.head.Since.UTC().Format("2 Jan")
	for _, want := range []string{"Unbroken since " + since, "; 120 entries; head signed 2\u00a0min ago", "gone through 7\u00a0min ago", "newest entry 120", `data-l="No">119<`, "fulmar audit list</code>", "Copy the command", `<a href="/boards/dock-0017">`, "no reason given", "no board"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if n := strings.Count(page, `<th scope="row">`); n != perPage {
		t.Errorf("%d rows on a page, want %d", n, perPage)
	}
	seen, at := 0, "/audit"
	for range 3 { // from page to page, each entry once
		page := ask(t, h, "operator", http.MethodGet, at).Body.String()
		seen += strings.Count(page, `<th scope="row">`)
		_, rest, more := strings.Cut(page, `<a href="/audit?after=`)
		if !more {
			break
		}
		after, _, _ := strings.Cut(rest, `"`)
		at = "/audit?after=" + after
	}
	if seen != 120 {
		t.Errorf("%d of 120 entries on all pages", seen)
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := newBook(now, 120)
	h := newSite(t, b)
	page := ask(t, h, "admin", http.MethodGet, "/audit?who=m.kern&what=revoke&board=dock-0002&from=2026-01-01&to=2030-01-01").Body.String()
	if strings.Contains(page, "token line-4") || !strings.Contains(page, "stolen") || !strings.Contains(page, "--who &#39;m.kern&#39; --what &#39;revoke&#39; --board &#39;dock-0002&#39; --from &#39;2026-01-01T00:00:00Z&#39; --to &#39;2030-01-02T00:00:00Z&#39;") {
		t.Error("the filter is not taken, or the command is not that of the filter")
	}
	if got := Command(rest.AuditFilter{Who: `'; rm -rf / #`}); got != `fulmar audit list --who ''\''; rm -rf / #'` {
		t.Errorf("a name that ends the quotes: %s", got)
	}
	for _, q := range []string{"from=yesterday", "who=" + strings.Repeat("x", 200), "what=a%0ab"} {
		if w := ask(t, h, "admin", http.MethodGet, "/audit?"+q); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `aria-invalid="true"`) {
			t.Errorf("%.20s: %d", q, w.Code)
		}
	}
	for _, q := range []string{"after=-1", "after=x", "who=%3Cscript%3E", "after=99999999999999999999"} {
		if w := ask(t, h, "admin", http.MethodGet, "/audit?"+q); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "<script>") {
			t.Errorf("%s: %d", q, w.Code)
		}
	}
	if page := ask(t, h, "admin", http.MethodGet, "/audit?who=nobody").Body.String(); !strings.Contains(page, "No entry matches.") {
		t.Error("an empty answer says nothing")
	}
}

// TestBroken: a chain that does not hold is said first, in an alert, with what it means.
func TestBroken(t *testing.T) {
	t.Parallel()
	b := newBook(time.Now(), 9)
	b.head.Broken = "entry 7 does not follow from entry 6"
	page := ask(t, newSite(t, b), "admin", http.MethodGet, "/audit").Body.String()
	for _, want := range []string{"<span>The chain is broken</span>", `role="alert"`, "Entry 7 does not follow from entry 6.", "before you trust what follows"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page, "Unbroken") {
		t.Error("broken and unbroken at once")
	}
	b.head.Broken, b.headErr = "", errBroken
	if w := ask(t, newSite(t, b), "admin", http.MethodGet, "/audit"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "The rows since 41 do not follow from the signed head.") || !strings.Contains(w.Body.String(), "token line-4") {
		t.Errorf("a head that cannot be signed: %d", w.Code)
	}
	for _, c := range []struct {
		head rest.AuditHead
		want string
	}{
		{rest.AuditHead{}, "Nothing has been written yet"},
		{rest.AuditHead{Seq: 3, Rows: 3, Since: time.Now()}, "3 entries since " + time.Now().UTC().Format("2 Jan") + "; the chain has not been gone through yet"},
		{rest.AuditHead{Seq: 3, Rows: 3, Since: time.Now(), Checked: time.Now()}, "the head is not signed"},
	} {
		b := newBook(time.Now(), 0)
		b.head = c.head
		if page := ask(t, newSite(t, b), "admin", http.MethodGet, "/audit").Body.String(); !strings.Contains(page, c.want) || strings.Contains(page, "Unbroken since") != strings.Contains(c.want, "not signed") {
			t.Errorf("%+v does not say %q", c.head, c.want)
		}
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	h := newSite(t, newBook(time.Now(), 3))
	for role, want := range map[string]int{"viewer": 403, "operator": 200, "releaser": 200, "admin": 200, "root": 403, "": 403} {
		if w := ask(t, h, role, http.MethodGet, "/audit"); w.Code != want {
			t.Errorf("%q: %d, want %d", role, w.Code, want)
		}
		if w := ask(t, h, role, http.MethodPost, "/audit"); w.Code < 400 {
			t.Errorf("%q posts: %d", role, w.Code)
		}
	}
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/audit", http.NoBody)); w.Code != http.StatusUnauthorized {
		t.Errorf("without a session: %d", w.Code)
	}
	b := newBook(time.Now(), 3)
	b.err = errors.New("disk on fire: /var/lib/secret")
	if w := ask(t, newSite(t, b), "admin", http.MethodGet, "/audit"); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "fire") {
		t.Errorf("with a broken store: %d", w.Code)
	}
}
