// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestStatusOnTCPWantsItsToken(t *testing.T) {
	t.Parallel()
	h := guard("sixteen-letters!", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	for header, want := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer sixteen-letters!": 204} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, wants %d", header, w.Code, want)
		}
	}
}
