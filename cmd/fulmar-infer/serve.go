// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"runtime/debug"
	"strconv"
	"time"

	"fulmar/inference"
	"fulmar/inference/worker"
	"fulmar/internal/run"
	"fulmar/internal/sdnotify"
)

const (
	// memoryLimit bounds the Go heap softly: two 8K pictures decoded, one of them
	// waiting, and the rest. What ONNX Runtime takes is beside it. GOMEMLIMIT in the
	// environment goes before.
	memoryLimit = 512 << 20
	stopGrace   = 12 * time.Second
)

type options struct {
	socket   string
	library  string
	tensorrt string
	level    slog.Level
	child    bool
	client   string        // user that fulmard runs as, "" for our own
	builds   string        // socket for builds, "" for children
	alone    time.Duration // we end after so long without fulmard; 0: never
}

// serve is the worker.
func serve(ctx context.Context, o options, stdin io.Reader, stderr io.Writer) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: o.level, ReplaceAttr: o.attr}))
	clock, err := inference.BoardClock("/")
	if err != nil {
		return err
	}
	ln, err := sdnotify.Listen(o.socket)
	if err != nil {
		return err
	}
	chooser, err := newChooser(o, log)
	if err != nil {
		return err
	}
	// The server tells the pipeline what to do and the pipeline tells the server
	// what it saw; no setup comes before the server runs.
	var server *worker.Server
	pipeline := inference.New(inference.Config{
		Release: release, Clock: clock, Log: log,
		Load:         chooser.Load,
		Engines:      chooser.Keep,
		Open:         inference.OpenSource,
		OpenPictures: inference.OpenBlobs,
		Send:         func(r worker.Result) { server.Send(r) },
	})
	server = worker.NewServer(release, ln, pipeline, log)
	if o.client != "" {
		uid, err := userID(o.client)
		if err != nil {
			return errors.Join(err, ln.Close())
		}
		server.Admit(uid)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.child {
		// Not in the group: no stop ends a read of standard input, and nothing need
		// wait for it, for the process ends.
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			log.Info("standard input ended: fulmard is gone")
			cancel()
		}()
	}
	g := run.New(ctx)
	g.Go("pipeline", pipeline.Run)
	g.Go("server", server.Run)
	if o.alone > 0 {
		g.Go("alone", func(ctx context.Context) error {
			if awaitAlone(ctx, o.alone, server.Alone) {
				log.Info("no fulmard, and nobody to see for: ended", "for", o.alone)
				cancel()
			}
			return nil
		})
	}
	return g.Wait(stopGrace)
}

// awaitAlone waits until there was nobody for so long; false if the context ends first.
// A worker whose fulmard was stopped looks at its cameras for nobody; its socket starts
// it again.
func awaitAlone(ctx context.Context, long time.Duration, alone func() time.Duration) bool {
	for {
		left := long - alone()
		if left <= 0 {
			return true
		}
		t := time.NewTimer(left)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}

// userID finds a user by name or number.
func userID(name string) (int, error) {
	if uid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(uid), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("--client: %w: give the user that fulmard runs as", err)
	}
	return strconv.Atoi(u.Uid)
}

// attr leaves the time to fulmard, whose log a child's lines go into.
func (o options) attr(groups []string, a slog.Attr) slog.Attr {
	if o.child && len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
