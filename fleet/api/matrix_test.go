// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"fulmar/schema/rest"
)

// described is a route as the description has it, and not as the handlers do, so that
// none is forgotten.
type described struct {
	Method, Path, ID string
	Right            rest.Right `json:"x-right"`
	Whole            bool       `json:"x-whole-fleet"`
	Security         []map[string][]string
}

// Tag is the first part of the path.
func (d described) Tag() string {
	tag, _, _ := strings.Cut(d.Path, "/")
	return tag
}

func descriptions(t *testing.T, h *Handler) (out []described) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
			described
		}
	}
	b, err := h.Document(true)
	if err != nil || json.Unmarshal(b, &doc) != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for m, d := range methods {
			d.Method, d.ID = strings.ToUpper(m), d.OperationID
			d.Path = strings.TrimPrefix(path, "/api/v1/")
			out = append(out, d.described)
		}
	}
	slices.SortFunc(out, func(a, b described) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// where puts things that there are into a path.
func where(path string) string {
	for from, to := range map[string]string{
		"boards/{board}": "boards/b1", "requests/{id}": "requests/7", "rollouts/{id}": "rollouts/r-1", "commands/{id}": "commands/c-1", "users/{id}": "users/ann", "tokens/{id}": "tokens/t1",
		"alert-rules/{id}": "alert-rules/hot", "webhooks/{id}": "webhooks/w1", "operations/{id}": "operations/none", "{delivery}": "9", "releases/{release}": "releases/1.9.0", "{tree}": strings.Repeat("9f86d081", 8),
		"{board}/{class}/{epoch}/{seq}": "b1/event/1/30", "{name}": "x", "{endpoint}": "query", "{what}": "buildinfo",
	} {
		path = strings.Replace(path, from, to, 1)
	}
	return path
}

// TestMatrix: each role, and a token without rights, against each route of the
// description: who has the right gets through, who has not changes nothing and learns
// nothing.
func TestMatrix(t *testing.T) {
	t.Parallel()
	callers := map[string]rest.Rights{"nobody": 0, "": 0, "forged": 0, "must-change": 0}
	for _, r := range rest.Roles() {
		callers[string(r)] = r.Rights()
	}
	s := newTown()
	h := open(t, s)
	all := descriptions(t, h)
	if len(all) < 50 {
		t.Fatalf("%d routes", len(all))
	}
	for _, d := range all {
		if d.ID == "stream-events" { // TestEvents
			continue
		}
		for who, rights := range callers {
			before := len(s.done())
			w := ask(h, d.Method, where(d.Path)+confirmed(d.ID), who, bodyOf(d.ID), "If-Match", "*")
			in := d.Right == "" || rights.Has(d.Right)
			want := 0
			switch {
			case d.Security == nil: // the description alone
			case who == "" || who == "forged":
				want = http.StatusUnauthorized
			case who == "must-change" || !in || d.ID == "make-token" && who == "nobody", // with a right that they have not
				d.ID == "act-on-command" && !rights.Has(rest.CommandsSend): // the action's own right
				want = http.StatusForbidden
			case d.ID == "get-operation" || d.ID == "revoke-token" && who != "admin":
				want = http.StatusNotFound // there is none, or none of theirs
			case d.ID == "approve-rollout" && who == "releaser":
				want = http.StatusForbidden // of what they planned themselves
			}
			if want == 0 && w.Code/100 != 2 || want != 0 && w.Code != want {
				t.Errorf("%s %s as %q: %d %s", d.Method, d.Path, who, w.Code, w.Body)
			}
			if want != 0 && (len(s.done()) > before || strings.Contains(w.Body.String(), `"b1"`) || w.Header().Get("Content-Type") != "application/problem+json") {
				t.Errorf("%s %s as %q: did %q and told %s", d.Method, d.Path, who, s.done()[before:], w.Body)
			}
		}
	}
}

// TestOtherTenant: what is another tenant's is not there.
func TestOtherTenant(t *testing.T) {
	t.Parallel()
	h := open(t, newTown())
	for _, path := range []string{"boards/b1", "boards/b1/ledger", "boards/b1/meta"} {
		if w := get(h, path, "elsewhere"); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := get(h, "boards?count=true", "elsewhere"); strings.Contains(w.Body.String(), "b1") || !strings.Contains(w.Body.String(), `"total":0`) {
		t.Errorf("%s", w.Body)
	}
	if w := get(h, "prometheus/api/v1/query", "elsewhere"); w.Body.String() != `{"prometheus/api/v1/query": "other b1:true new:true"}` {
		t.Errorf("%s", w.Body)
	}
}

// TestLimited: a token that is limited to b1 sees and changes as if there was no other
// board, on every route.
func TestLimited(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	for _, d := range descriptions(t, h) {
		if d.Security == nil || d.ID == "stream-events" || d.ID == "get-me" || d.ID == "get-operation" {
			continue
		}
		before := len(s.done())
		other := strings.NewReplacer("boards/b1", "boards/new", "rollouts/r-1", "rollouts/r-2", "commands/c-1", "commands/c-2", "detections/b1", "detections/new", "tokens/t1", "tokens/t2").Replace(where(d.Path))
		w := ask(h, d.Method, other+strings.Replace(confirmed(d.ID), "b1", "new", 1), "limited", bodyOf(d.ID), "If-Match", "*")
		switch {
		case d.Whole:
			if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), string(rest.CodeLimited)) || len(s.done()) > before {
				t.Errorf("%s tells of the whole fleet: %d %s, did %q", d.ID, w.Code, w.Body, s.done())
			}
		case strings.Contains(d.Path, "{") && d.Tag() != "prometheus":
			if w.Code != http.StatusNotFound || len(s.done()) > before {
				t.Errorf("%s of another board: %d %s, did %q", d.ID, w.Code, w.Body, s.done())
			}
		}
		if strings.Contains(w.Body.String(), `"new"`) || strings.Contains(w.Body.String(), "r-2") || strings.Contains(w.Body.String(), "c-2") {
			t.Errorf("%s tells %s", d.ID, w.Body)
		}
		if w := ask(h, d.Method, where(d.Path)+confirmed(d.ID), "misread", bodyOf(d.ID), "If-Match", "*"); w.Code/100 == 2 && d.Right != "" {
			t.Errorf("%s with a limit that nobody understands: %d %s", d.ID, w.Code, w.Body)
		}
	}
	if w := get(h, "prometheus/api/v1/query", "limited"); w.Body.String() != `{"prometheus/api/v1/query": "default b1:true new:false"}` {
		t.Errorf("%s", w.Body)
	}
	before := len(s.done())
	for _, do := range [][2]string{{"rollouts", bodyOf("create-rollout")}, {"tokens", bodyOf("make-token")}} {
		ask(h, "POST", do[0], "limited", do[1])
	}
	ask(h, "POST", "rollouts", "limited", `{"component":"agent","release":"2","query":"any"}`)
	if w := ask(h, "POST", "rollouts", "limited", `{"component":"agent","release":"2","boards":["new"]}`); w.Code != 422 {
		t.Errorf("a rollout to a board beyond the limit: %d %s", w.Code, w.Body)
	}
	want := `plan 1.9.0 by limited, who sees "b1", for ""|token ci by limited, who sees "b1", for ""|plan 2 by limited, who sees "b1", for "any"`
	if got := strings.Join(s.done()[before:], "|"); got != want {
		t.Errorf("did %s\nwants %s", got, want)
	}
}

// TestTraffic: what is asked and answered is as the description has it, with no field
// too many.
func TestTraffic(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	strict, err := h.Document(true)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := libopenapi.NewDocument(strict)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	ok, valid := v.ValidateDocument()
	for _, e := range valid {
		t.Errorf("the description: %s", e.Message)
	}
	if !ok {
		t.Fatal("the description is not valid")
	}
	for _, d := range descriptions(t, h) {
		if d.ID == "stream-events" {
			continue
		}
		for _, who := range []string{"admin", "nobody"} {
			for _, query := range []string{"", "dry_run=true", "count=true&page_size=1"} {
				if query != "" && d.Method == http.MethodGet == (query == "dry_run=true") || strings.HasPrefix(query, "count") && d.ID != "list-boards" {
					continue
				}
				path := "/api/v1/" + where(d.Path) + confirmed(d.ID)
				if query != "" {
					path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + query
				}
				r := httptest.NewRequest(d.Method, "https://fleet.example"+path, strings.NewReader(bodyOf(d.ID)))
				r.Header.Set("Authorization", "Bearer "+who)
				r.Header.Set("If-Match", "*")
				if bodyOf(d.ID) != "" {
					r.Header.Set("Content-Type", "application/json")
				}
				if d.ID == "put-object" {
					r.Header.Set("Content-Type", "application/octet-stream")
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				r.Body = io.NopCloser(strings.NewReader(bodyOf(d.ID)))
				if ok, errs := v.ValidateHttpRequestResponse(r, w.Result()); !ok { //nolint:bodyclose // of a recorder
					for _, e := range errs {
						t.Errorf("%s %s as %s: %d: %s: %s", d.Method, path, who, w.Code, e.Message, e.Reason)
						for _, f := range e.SchemaValidationErrors {
							t.Errorf("   %s at %s in %.300s", f.Reason, f.FieldPath, w.Body)
						}
					}
				}
			}
		}
	}
}
