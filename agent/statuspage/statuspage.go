// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package statuspage serves what a board says of itself: on a unix socket that only this
// user's group reaches, or on a TCP address behind a bearer token.
package statuspage

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

// Bounds of the server. It is for one scraper and one person.
const (
	timeout    = 5 * time.Second
	maxHeaders = 8 << 10
)

// ErrListen: nothing is served, because of the socket, the address or the token.
var ErrListen = errors.New("nothing is served")

// Serve serves pages where the config says, until the context ends. It returns nil then,
// and where nothing is to be served.
func Serve(ctx context.Context, cfg *config.Config, pages http.Handler) error {
	if cfg.Status.Listen == "off" {
		return nil
	}
	l, token, err := listen(cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrListen, err)
	}
	srv := &http.Server{
		Handler:           guard(token, pages),
		ReadHeaderTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: maxHeaders,
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve status: %w", err)
	}
	return nil
}

func listen(cfg *config.Config) (net.Listener, string, error) {
	if path, ok := strings.CutPrefix(cfg.Status.Listen, "unix:"); ok || cfg.Status.Listen == "" {
		if !ok {
			path = cfg.StatusSocket()
		}
		_ = os.Remove(path) // of a process that was killed; a living one holds the spool's lock
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, "", err
		}
		return l, "", os.Chmod(path, 0o660)
	}
	b, err := os.ReadFile(cfg.Status.TokenFile)
	if err != nil {
		return nil, "", err
	}
	token := strings.TrimSpace(string(b))
	if len(token) < 16 {
		return nil, "", fmt.Errorf("status.token_file %s: token of %d characters, wants at least 16", cfg.Status.TokenFile, len(token))
	}
	l, err := net.Listen("tcp", cfg.Status.Listen)
	return l, token, err
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
