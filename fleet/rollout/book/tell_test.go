// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package book

import (
	"context"
	"database/sql"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"fulmar/fleet/registry"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// TestTold: a rollout is told from start to end, in order, and an event that cannot be
// queued leaves nothing of its step.
func TestTold(t *testing.T) {
	t.Parallel()
	reg, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close() //nolint:errcheck // only a test's
	var told []string
	full := errors.New("the queue is full")
	var fail error
	b := New(reg.Rollouts(), func(_ context.Context, tx *sql.Tx, e Event) error {
		if tx == nil || e.Tenant != tenant || e.At.IsZero() || e.Data.Rollout != "r-1" || e.Data.Component != "agent" || e.Data.Release != "1.9" || e.Data.Say == "" || e.Data.Version < 2 {
			t.Errorf("told %+v", e)
		}
		if len(e.Data.Say) > maxSay+3 || !utf8.ValidString(e.Data.Say) {
			t.Errorf("a sentence of %d bytes", len(e.Data.Say))
		}
		told = append(told, strings.TrimPrefix(e.Type, "rollout."))
		return fail
	})
	r := made(t, 4)
	if err := b.Create(t.Context(), r, "ann"); err != nil {
		t.Fatal(err)
	}
	fail = full
	if err := drive(t.Context(), b, r, func() error { return nil }); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if r, err = b.Get(t.Context(), tenant, "r-1"); err != nil || r.State != state.Planned || r.Version != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	fail, told = nil, nil
	if err := drive(t.Context(), b, r, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"started", "wave", "wave", "done"}; !slices.Equal(told, want) {
		t.Errorf("told %v, wants %v", told, want)
	}
	long := b.telling(r, []rest.RolloutStep{{At: r.Since, To: string(state.Halted), Say: strings.Repeat("ä", maxSay)}})
	told = nil
	if err := long(t.Context(), new(sql.Tx)); err != nil || len(told) != 1 {
		t.Errorf("%v: %v", err, told)
	}
}

// TestWords: what each arrow of the table is told as.
func TestWords(t *testing.T) {
	t.Parallel()
	started := map[state.State]bool{state.Planned: true, state.Approval: true, state.Done: true, state.Halted: true, state.RolledBack: true, state.Aborted: true}
	heard := map[string]bool{}
	for _, a := range state.Table() {
		var want []string
		if started[a.From] && (a.To == state.Waiting || a.To == state.Before || a.To == state.InWave) {
			want = append(want, "rollout.started")
		}
		switch {
		case a.To == state.InWave && a.From == state.Paused: // goes on where it was
		case a.To == state.InWave:
			want = append(want, "rollout.wave")
		case a.To == state.Approval, a.To == state.Held, a.To.Over():
			want = append(want, "rollout."+string(a.To))
		}
		got := words(a.From, a.To)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("from %s to %s: %v, wants %v", a.From, a.To, got, want)
		}
		for _, w := range got {
			heard[w] = true
		}
	}
	if len(heard) != 8 {
		t.Errorf("heard %v, wants all eight", heard)
	}
}
