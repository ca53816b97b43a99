// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/storagetest"
)

// small makes several segments of a few hundred records.
func small(dir string) storage.Config {
	cfg := storage.Config{Dir: dir, Clock: schema.NewClock(7, time.Hour), NoSync: true}
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{SegmentBytes: 64 << 10, QuotaBytes: 16 << 20}
	}
	return cfg
}

func logTo(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func open(t *testing.T, cfg storage.Config) *storage.Spool {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = logTo(t)
	}
	s, err := storage.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		storagetest.Run(t, func(t *testing.T, dir string) storagetest.Spool { return open(t, small(dir)) })
	})
	t.Run("running", func(t *testing.T) {
		t.Parallel()
		storagetest.Run(t, func(t *testing.T, dir string) storagetest.Spool {
			cfg := small(dir)
			cfg.Classes[schema.ClassEvent].Linger = -1
			cfg.Classes[schema.ClassSnapshot].Linger = -1
			return start(t, cfg)
		})
	})
}

// running is a spool with its committers.
type running struct {
	*storage.Spool
	stop func() error
}

func (r running) Close() error {
	if err := r.stop(); err != nil {
		return err
	}
	return r.Spool.Close()
}

func start(t *testing.T, cfg storage.Config) running {
	t.Helper()
	s := open(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	return running{s, func() error {
		if cancel(); stopped {
			return nil
		}
		stopped = true
		return <-ended
	}}
}
