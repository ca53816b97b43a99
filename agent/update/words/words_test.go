// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package words

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link"
	"fulmar/schema"
	wire "fulmar/schema/ota"
)

// fleet is who hears.
type fleet struct {
	mu    sync.Mutex
	heard []string
	err   error
}

func (f *fleet) send(_ context.Context, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	var s wire.State
	if err := schema.Decode(b, &s); err != nil {
		return err
	}
	f.heard = append(f.heard, s.Component+" "+s.State)
	return nil
}

func (f *fleet) fails(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fleet) wants(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.heard, want) {
		t.Errorf("heard %q, wants %q", f.heard, want)
	}
	f.heard = nil
}

func said(component, state string) wire.State {
	return wire.State{V: 1, Rollout: "r-1", Attempt: 1, State: state, Component: component}
}

// TestUntilHeard: the newest word of each component, also after a restart, a refused try, and
// on each connection again.
func TestUntilHeard(t *testing.T) {
	t.Parallel()
	path, log := filepath.Join(t.TempDir(), "told"), slog.New(slog.DiscardHandler)
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{}
		w := Open(path, f.send, log)
		must := func(s wire.State) {
			t.Helper()
			if err := w.Tell(s); err != nil {
				t.Fatal(err)
			}
		}
		must(said("agent", wire.Trial))
		must(said("agent", wire.Committed))
		must(said("model/a", wire.Fetching))
		w = Open(path, f.send, log) // the process was killed
		ctx, cut := context.WithCancel(t.Context())
		go w.Connected(ctx)
		f.wants(t, "agent committed", "model/a fetching")
		more := said("model/a", wire.Fetching)
		more.Progress = 40
		must(more)
		f.wants(t, "model/a fetching")
		f.fails(link.ErrDown)
		must(said("model/a", wire.Staged))
		f.wants(t)
		f.fails(nil)
		time.Sleep(again)
		f.wants(t, "model/a staged")
		cut()
		ctx, cut = context.WithCancel(t.Context())
		go w.Connected(ctx)
		f.wants(t, "agent committed", "model/a staged")
		f.fails(link.ErrNotTaken)
		must(said("model/a", wire.Failed))
		f.wants(t)
		cut()
	})
}

// TestDamaged: a file that is none begins anew.
func TestDamaged(t *testing.T) {
	t.Parallel()
	path, log := filepath.Join(t.TempDir(), "told"), slog.New(slog.DiscardHandler)
	for _, b := range [][]byte{{}, {0xff}, make([]byte, maxFile+1)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		w := Open(path, nil, log)
		if err := w.Tell(said("agent", wire.Trial)); err != nil || len(Open(path, nil, log).newest) != 1 {
			t.Error(err)
		}
	}
	if err := Open(filepath.Join(path, "x", "y"), nil, log).Tell(said("agent", wire.Trial)); err == nil {
		t.Error("a word that is not on the disk was taken for kept")
	}
}
