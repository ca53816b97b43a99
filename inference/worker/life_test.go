// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"fulmar/internal/peercred"
	"fulmar/internal/sdnotify"
)

// A worker ends when its fulmard asks for another, and not for what was asked of the one
// before it, nor when fulmard comes back and knows nothing.
func TestLife(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "fw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "w.sock")
	ln, err := sdnotify.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	be := &backend{setups: make(chan Setup, 64)}
	s := NewServer("test-worker", ln, be, quiet())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(context.Background()) }()
	c := NewClient("test-fulmard", func(ctx context.Context) (net.Conn, error) { return peercred.Dial(ctx, path) }, newKeeper(), quiet())
	background(t, c.Run)
	for _, life := range []uint64{7, 7, 0, 0, 7} {
		if err := c.Update(Setup{Life: life}); err != nil {
			t.Fatal(err)
		}
		<-be.setups
	}
	select {
	case err := <-ended:
		t.Fatal("it ended for what was asked before: ", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := c.Update(Setup{Life: 8}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, ErrRestart) {
			t.Error(err)
		}
	case <-time.After(waitLong):
		t.Error("it did not end")
	}
}
