// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// TestHear: an object's topic is heard from when it is asked for until it is left or the
// connection ends, two at a time, and one that the broker refuses costs no connection.
func TestHear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trees := []string{strings.Repeat("ab", 32), strings.Repeat("cd", 32), strings.Repeat("ef", 32)}
		var d diary
		var deny atomic.Bool
		b := linktest.New(t)
		b.Deny = func(topic string, _ bool) bool { return deny.Load() && strings.Contains(topic, "/o/") }
		cfg := aside(b, &d)
		cfg.Filters = append(cfg.Filters, schema.ChanPiece)
		cfg.Heard = nil
		cfg.Connected = func(ctx context.Context, _ uint64) { <-ctx.Done() }
		s, err := New(cfg, newMemory(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Hear(t.Context(), trees[0]); !errors.Is(err, ErrDown) {
			t.Errorf("before the connection: %v", err)
		}
		runUntilEnd(t, s)
		time.Sleep(time.Minute)
		say := func(what string) {
			t.Helper()
			for _, tree := range trees {
				if err := b.Publish(schema.ObjectTopic("default", tree), []byte(what)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		say("early")
		lost, err := s.Hear(t.Context(), trees[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Hear(t.Context(), trees[0]); err != nil {
			t.Errorf("again: %v", err)
		}
		say("one")
		if _, err := s.Hear(t.Context(), trees[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Hear(t.Context(), trees[2]); err == nil {
			t.Error("a third object is heard")
		}
		if err := errors.Join(s.Leave(t.Context(), trees[0]), s.Leave(t.Context(), trees[0])); err != nil {
			t.Fatal(err)
		}
		say("two")
		deny.Store(true)
		if _, err := s.Hear(t.Context(), trees[2]); !errors.Is(err, ErrNotTaken) {
			t.Errorf("denied: %v", err)
		}
		deny.Store(false)
		if st := s.Status(); st.Generation != 1 || !st.Up() {
			t.Errorf("%+v", st)
		}
		for _, bad := range []string{"", "+", "#", strings.Repeat("AB", 32), trees[0] + "/#", trees[0][:63] + "+"} {
			if _, err := s.Hear(t.Context(), bad); err == nil || errors.Is(err, ErrDown) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		if err := b.Publish("f/v1/default/dock-1/ota/c", []byte("own")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		b.SetCut(true)
		select {
		case <-lost:
		case <-time.After(time.Second):
			t.Error("the end was not told")
		}
		b.SetCut(false)
		time.Sleep(time.Minute)
		say("after")
		want := []string{"ota/c " + trees[0] + " one", "ota/c " + trees[1] + " two", "ota/c  own"}
		if got := d.all(); !slices.Equal(got, want) {
			t.Errorf("%q, wants %q", got, want)
		}
	})
}

// TestWant: what a board wants goes beside the records.
func TestWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var got atomic.Int64
		b := linktest.New(t)
		b.Take = func(tp schema.Topic, _ []byte) error {
			if tp.Channel == schema.ChanWant {
				got.Add(1)
			}
			return nil
		}
		cfg := aside(b, &d)
		cfg.Filters = append(cfg.Filters, schema.ChanPiece)
		s := start(t, cfg, newMemory())
		time.Sleep(time.Minute)
		if err := s.Send(t.Context(), schema.ChanWant, "", []byte("x")); err != nil || got.Load() != 1 {
			t.Errorf("%v, %d came", err, got.Load())
		}
	})
}
