// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package targets

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"testing"
)

func TestReachable(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"10.0.0.5:9100": true, "[fd00::1]:9100": true, "dock-1.lan:9100": true,
		"": false, "dock-1": false, "dock-1:": false, ":9100": false, "dock-1:99999": false, "u@dock-1:9100": false, "dock-1/x:9100": false, "http://dock-1:9100": false,
	} {
		if reachable(addr) != want {
			t.Errorf("%q: %v", addr, !want)
		}
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	ask := func(boards []Board, err error) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		Handler(func(context.Context) (string, []Board, error) { return "a", boards, err }).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		return w
	}
	if w := ask(nil, nil); w.Body.String() != "[]\n" {
		t.Errorf("no boards: %q", w.Body)
	}
	if w := ask(nil, errors.New("secret")); w.Code != 503 || w.Body.String() == "secret\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	var got []group
	w := ask([]Board{{Name: "dock-1", Labels: map[string]string{Label: "h:1", "a-b": "c"}}}, nil)
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got) != 1 || got[0].Labels["label_a_b"] != "c" || got[0].Labels["board"] != "dock-1" {
		t.Errorf("%s", w.Body)
	}
}
