// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"strings"
	"testing"
)

// TestJoinTokens: what a join token takes, what it is without words, and that its secret
// is in no answer but the first.
func TestJoinTokens(t *testing.T) {
	t.Parallel()
	s := newTown()
	h := open(t, s)
	for body, say := range map[string]string{
		`{"boards":-1}`: "/boards", `{"boards":10001}`: "/boards", `{"seconds":-1}`: "/seconds", `{"seconds":2592001}`: "/seconds",
		`{"board":"a/b"}`: "/board", `{"board":"dock-1","boards":2}`: "/boards", `{"days":1}`: "unknown", `[]`: "", `{"boards":"x"}`: "/boards",
	} {
		if w := ask(h, http.MethodPost, "join-tokens", "admin", body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), say) {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	for _, body := range []string{`{}`, `{"board":"dock-1","seconds":2592000}`, `{"boards":10000,"seconds":1}`} {
		w := ask(h, http.MethodPost, "join-tokens", "admin", body)
		if w.Code != http.StatusCreated || !strings.Contains(w.Body.String(), "fe1_secret") {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if w := get(h, "join-tokens", "admin"); w.Code != 200 || strings.Contains(w.Body.String(), "fe1_") || !strings.Contains(w.Body.String(), `"boards":3`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(h, http.MethodDelete, "join-tokens/t9?dry_run=true", "admin", ""); w.Code != http.StatusNotFound {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want := `join token by admin for "", 1 boards, 3600 s|join token by admin for "dock-1", 1 boards, 2592000 s|join token by admin for "", 10000 boards, 1 s`
	if got := strings.Join(s.done(), "|"); got != want {
		t.Errorf("did %s\nwants %s", got, want)
	}
}
