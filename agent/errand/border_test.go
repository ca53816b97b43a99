// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package errand

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/inference/worker"
	"fulmar/internal/peercred"
	"fulmar/internal/sdnotify"
	"fulmar/schema"
)

// eyes is a worker's pipeline: it keeps a picture when one is asked for.
type eyes struct {
	server *worker.Server
	asked  uint64
}

func (e *eyes) Status() worker.Status { return worker.Status{} }

func (e *eyes) Apply(s worker.Setup) {
	if n := s.Asked["cam0"]; n != e.asked {
		e.asked = n
		e.server.Send(worker.Result{Event: schema.Event{Source: "cam0"}, Snapshot: &schema.Snapshot{Name: "cam0-1.jpg", Size: 1, Media: "image/jpeg", Source: "cam0"}})
	}
}

// ears hand pictures to the errands, as the agent does.
type ears struct{ e *Errands }

func (ears) Status(context.Context, *worker.Status) {}
func (h ears) Result(_ context.Context, r *worker.Result) {
	if r.Snapshot != nil {
		h.e.Took(r.Event.Source, r.Snapshot.Name)
	}
}

// TestErrands: over a real border a picture comes when it is asked for, and another worker
// when one is asked for; where no worker is, both say so.
func TestErrands(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "errand")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "w.sock")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	lives := make(chan struct{}, 8)
	go func() { // keeps a worker, as systemd does
		for ctx.Err() == nil {
			ln, err := sdnotify.Listen(path)
			if err != nil {
				t.Error(err)
				return
			}
			e := &eyes{}
			e.server = worker.NewServer("test", ln, e, slog.New(slog.DiscardHandler))
			lives <- struct{}{}
			if err := e.server.Run(ctx); ctx.Err() == nil && !errors.Is(err, worker.ErrRestart) {
				t.Error(err)
				return
			}
		}
	}()
	<-lives
	e := &Errands{Cameras: func() []string { return []string{"cam0"} }}
	client := worker.NewClient("test", func(ctx context.Context) (net.Conn, error) { return peercred.Dial(ctx, path) }, ears{e}, slog.New(slog.DiscardHandler))
	e.Client = func() *worker.Client { return client }
	e.Update = func(c *worker.Client) error {
		return c.Update(e.Setup(worker.Setup{
			BlobDir: dir, BlobQuota: 1 << 20, Models: []worker.Model{{Name: "m", Path: "builtin:m"}},
			Cameras: []worker.Camera{{Name: "cam0", Kind: "scene", FPS: 1, Model: "m"}},
		}))
	}
	wants := func(err error, code string) {
		t.Helper()
		var ce *command.Error
		if !errors.As(err, &ce) || ce.Code != code {
			t.Errorf("%v, wants %s", err, code)
		}
	}
	_, err = e.Snapshot(ctx, "cam0")
	wants(err, "no-worker")
	wants(e.Restart(ctx), "no-worker")
	_, err = e.Snapshot(ctx, "cam9")
	wants(err, "no-such-camera")
	go func() { _ = client.Run(ctx) }()
	for !client.State().Connected {
		time.Sleep(time.Millisecond)
	}
	if err := e.Update(client); err != nil { // the worker's first setup
		t.Fatal(err)
	}
	for range 3 {
		if name, err := e.Snapshot(ctx, "cam0"); err != nil || name != "cam0-1.jpg" {
			t.Fatal(name, err)
		}
	}
	for range 2 {
		if err := e.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		<-lives
		if name, err := e.Snapshot(ctx, "cam0"); err != nil || name != "cam0-1.jpg" {
			t.Fatal(name, err)
		}
	}
	if len(e.waiting) != 0 {
		t.Errorf("%v still wait", e.waiting)
	}
	select {
	case <-lives:
		t.Error("one worker more than was asked for")
	case <-time.After(100 * time.Millisecond):
	}
}
