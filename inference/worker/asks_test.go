// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
)

// TestAsks: what people ask for goes into the setup and stays there over updates, and a
// picture is told to all who wait for that camera's.
func TestAsks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewClient("test", func(context.Context) (net.Conn, error) { return nil, errors.New("none") }, nil, slog.New(slog.DiscardHandler))
		a := &Asks{Client: c, Now: func() uint64 { return 7 }}
		s := Setup{Models: []Model{{Name: "m", Path: "/m"}}, Cameras: []Camera{{Name: "belt", Kind: "scene", FPS: 1, Model: "m"}, {Name: "gate", Kind: "scene", FPS: 1, Model: "m"}}}
		if err := a.Update(s); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Snapshot(ctx, "roof"); !errors.Is(err, ErrNoCamera) {
			t.Errorf("a camera that is not there: %v", err)
		}
		got := make(chan string, 3)
		for range 2 {
			go func() {
				name, err := a.Snapshot(ctx, "belt")
				if err != nil {
					t.Error(err)
				}
				got <- name
			}()
		}
		synctest.Wait()
		if err := errors.Join(a.Restart(ctx), a.Restart(ctx), a.Update(s)); err != nil {
			t.Fatal(err)
		}
		if c.setup.Shots["belt"] != 8 || c.setup.Again != 8 || c.setup.Shots["gate"] != 0 {
			t.Errorf("%+v", c.setup)
		}
		a.Result(&Result{Event: schema.Event{Source: "gate"}, Snapshot: &schema.Snapshot{Name: "wrong"}})
		a.Result(&Result{Event: schema.Event{Source: "belt"}})
		a.Result(&Result{Event: schema.Event{Source: "belt"}, Snapshot: &schema.Snapshot{Name: "belt-1.jpg"}})
		if x, y := <-got, <-got; x != "belt-1.jpg" || y != x {
			t.Errorf("%q and %q", x, y)
		}
		begin := time.Now()
		if _, err := a.Snapshot(ctx, "gate"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Minute || len(a.waiting["gate"]) != 0 {
			t.Errorf("a camera that gives none: %v, %d wait", err, len(a.waiting["gate"]))
		}
		s.Cameras = s.Cameras[1:]
		if err := a.Update(s); err != nil {
			t.Fatal(err)
		}
		ended, stop := context.WithCancel(t.Context())
		stop()
		_, _ = a.Snapshot(ended, "gate")
		if _, there := c.setup.Shots["belt"]; there {
			t.Error("a camera that is gone is asked for a picture for ever")
		}
	})
}
