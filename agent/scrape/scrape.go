// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package scrape serves a board's /metrics and /healthz: for one scraper and one person.
package scrape

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"fulmar/agent/config"
)

// Bounds of the server.
const (
	timeout    = 5 * time.Second
	maxHeaders = 8 << 10
	maxScrapes = 4 // at once; more are told to come again
)

// Server listens on a unix socket that only this user's group reaches, or on a TCP
// address behind a bearer token.
type Server struct {
	l     net.Listener
	token string
}

// Listen opens what status.listen says; the config has been validated and is not "off".
func Listen(cfg *config.Config) (*Server, error) {
	if path, ok := strings.CutPrefix(cfg.Status.Listen, "unix:"); ok || cfg.Status.Listen == "" {
		if !ok {
			path = cfg.StatusSocket()
		}
		_ = os.Remove(path) // of a process that was killed; a living one holds the spool's lock
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, err
		}
		return &Server{l: l}, os.Chmod(path, 0o660)
	}
	b, err := os.ReadFile(cfg.Status.TokenFile)
	if err != nil {
		return nil, err
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 16 {
		return nil, fmt.Errorf("status.token_file %s: token of %d characters, wants at least 16", cfg.Status.TokenFile, len(token))
	}
	l, err := net.Listen("tcp", cfg.Status.Listen)
	return &Server{l, token}, err
}

// Serve serves metrics and health until ctx ends. fill adds the metrics of one scrape; it is
// called by several at once.
func (s *Server) Serve(ctx context.Context, fill func(*Page), health http.HandlerFunc) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", metrics(fill))
	mux.HandleFunc("GET /healthz", health)
	srv := &http.Server{
		Handler:           guard(s.token, mux),
		ReadHeaderTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: maxHeaders,
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(s.l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve status: %w", err)
	}
	return nil
}

// metrics writes a page for each scrape.
func metrics(fill func(*Page)) http.HandlerFunc {
	places := make(chan struct{}, maxScrapes)
	return func(w http.ResponseWriter, _ *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			http.Error(w, "too many scrapes at once", http.StatusServiceUnavailable)
			return
		}
		var p Page
		fill(&p)
		w.Header().Set("Content-Type", mediaType)
		_ = p.write(w) // who has gone needs no answer
	}
}

// guard asks for the bearer token; without one (unix socket) file rights guard.
func guard(token string, next http.Handler) http.Handler {
	if token == "" {
		return next
	}
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			http.Error(w, "wants the bearer token of status.token_file", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
