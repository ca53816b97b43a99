// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"fulmar/fleet/ingest"
	"fulmar/fleet/ingest/pictures"
	"fulmar/fleet/store"
	"fulmar/fleet/store/live"
	"fulmar/fleet/store/storetest"
	"fulmar/schema"
)

// both are the writing and the reading side over one ledger.
type both struct {
	*store.Store
	in *ingest.Ingest
}

func (b both) Publish(ctx context.Context, k live.Key, topic string, payload []byte) (bool, error) {
	_, refused, err := b.in.Publish(ctx, ingest.BoardKey(k), topic, payload)
	return refused, err
}

func (b both) Hello(ctx context.Context, k live.Key, h *schema.Hello) error {
	return b.in.Hello(ctx, ingest.BoardKey(k), h)
}

func (b both) Presence(ctx context.Context, k live.Key, p schema.Presence) error {
	return b.in.Presence(ctx, ingest.BoardKey(k), p)
}

func (b both) Wipe(ctx context.Context, k live.Key) error { return b.in.Wipe(ctx, ingest.BoardKey(k)) }

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB, dir string, b storetest.Bounds) (storetest.Store, func()) {
		db, err := store.OpenLedger(dir)
		if err != nil {
			t.Fatal(err)
		}
		blobs, err := pictures.New(filepath.Join(dir, "pictures"))
		if err != nil {
			t.Fatal(err)
		}
		in := ingest.New(ingest.Config{EventsBytes: b.EventBytes}, db, blobs, slog.New(slog.DiscardHandler))
		run, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- in.Run(run) }()
		list := []store.Enrolled{{Name: "a"}, {Name: "b"}}
		s := store.New(db, func(context.Context, string) ([]store.Enrolled, error) { return list, nil }, blobs.Open).Eager()
		return both{s, in}, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
