// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

//go:build look

package web_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"testing"
	"time"

	. "fulmar/fleet/web"
	"fulmar/fleet/web/views"
)

// TestLook serves the made-up fleet for a person's eyes until it is stopped:
//
//	FULMAR_LOOK=127.0.0.1:8080 go test -tags look -run TestLook -timeout 1h ./fleet/web
//
// The log-in is open, so it listens only where it is told to.
func TestLook(t *testing.T) {
	addr := os.Getenv("FULMAR_LOOK")
	if addr == "" {
		t.Fatal("set FULMAR_LOOK=127.0.0.1:8080 to look at the page")
	}
	src := newMemory(time.Now)
	auth := &door{password: "one-time", open: true}
	h, err := New(Config{Release: "0.2.0", Zone: time.UTC, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Pages: views.Pages(views.Config{Source: src, Keeper: newKeeper(time.Now())})}, auth)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go h.Run(ctx)
	go func() {
		for n := 0; ctx.Err() == nil; n++ {
			time.Sleep(time.Second)
			src.tick(n%10 == 9)
		}
	}()
	t.Fatal(http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.AddCookie(&http.Cookie{Name: "session", Value: "s1"})
		h.ServeHTTP(w, r)
	})))
}
