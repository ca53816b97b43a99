// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package run

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func until(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestFirstErrorEndsTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(t.Context())
		boom := errors.New("boom")
		g.Go("steady", until)
		g.Go("fails", func(context.Context) error { time.Sleep(time.Second); return boom })
		if err := g.Wait(time.Second); !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "fails: ") {
			t.Errorf("got %v", err)
		}
	})
}

func TestPanicIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(t.Context())
		g.Go("steady", until)
		g.Go("wild", func(context.Context) error { panic("no") })
		if err := g.Wait(time.Second); err == nil || !strings.Contains(err.Error(), "wild: panic: no") {
			t.Errorf("got %v", err)
		}
	})
}

func TestStopHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(t.Context())
		release := make(chan struct{})
		g.Go("deaf", func(context.Context) error { <-release; return nil })
		time.AfterFunc(time.Minute, g.Stop)
		begin := time.Now()
		err := g.Wait(3 * time.Second)
		if err == nil || !strings.Contains(err.Error(), "deaf") || time.Since(begin) != time.Minute+3*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		close(release)
	})
}

func TestEndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := New(ctx)
		g.Go("a", until)
		g.Go("b", func(context.Context) error { return nil })
		time.AfterFunc(time.Second, cancel)
		if err := g.Wait(time.Second); err != nil {
			t.Error(err)
		}
	})
}
