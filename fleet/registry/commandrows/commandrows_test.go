// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commandrows_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"fulmar/fleet/registry"
	"fulmar/fleet/registry/commandrows"
)

// fill writes commands of one board each, given one after the other, a minute apart.
func fill(t *testing.T, n int, local bool, final bool) (*registry.Registry, time.Time) {
	t.Helper()
	reg, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reg.Close() })
	now := time.Now()
	var c commandrows.Change
	for i := range n {
		id := int64(i + 1)
		state, open := "done", 0
		if !final {
			state, open = "queued", 1
		}
		c.New = append(c.New, &commandrows.Command{Tenant: "default", ID: id, Name: "set", Given: now.Add(time.Duration(i-n) * time.Minute), Local: local, Counts: map[string]int{state: 1}, Open: open})
		c.NewBoards = append(c.NewBoards, &commandrows.Board{ID: [16]byte{1, byte(i), byte(i >> 8)}, Tenant: "default", Board: fmt.Sprintf("b%d", i%2), Command: id, State: state, Final: final, Heard: now})
		c.Last = id
	}
	if err := reg.Commands().Write(context.Background(), &c); err != nil {
		t.Fatal(err)
	}
	return reg, now
}

func left(t *testing.T, reg *registry.Registry) (ids []int64) {
	t.Helper()
	list, err := reg.Commands().List(context.Background(), "default", commandrows.Filter{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, c := range list {
		ids = append(ids, c.ID)
		b, err := reg.Commands().Boards(context.Background(), "default", c.ID, 10)
		if err != nil {
			t.Fatal(err)
		}
		rows += len(b)
	}
	n := 0
	if err := reg.Database().Read.QueryRow(`SELECT count(*) FROM command_board`).Scan(&n); err != nil || n != rows {
		t.Errorf("%d rows of boards, %d of commands that are there, %v", n, rows, err)
	}
	return ids
}

// prune runs until nothing is over.
func prune(t *testing.T, reg *registry.Registry, now time.Time, commands, boards, local int) {
	t.Helper()
	for i := range 1000 {
		n, err := commandrows.PruneTo(reg.Commands(), context.Background(), now, commands, boards, local)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		if i == 999 {
			t.Fatal("it does not end")
		}
	}
}

// TestPrune: what is over a bound goes, oldest first; what is open stays.
func TestPrune(t *testing.T) {
	t.Parallel()
	const many = 1 << 30
	for name, c := range map[string]struct {
		local, final bool
		later        time.Duration
		bounds       [3]int
		want         string
	}{
		"nothing":  {false, true, 0, [3]int{many, many, many}, "[10 9 8 7 6 5 4 3 2 1]"},
		"age":      {false, true, commandrows.Keep - 5*time.Minute - time.Second, [3]int{many, many, many}, "[10 9 8 7 6]"},
		"commands": {false, true, 0, [3]int{3, many, many}, "[10 9 8]"},
		"boards":   {false, true, 0, [3]int{many, 4, many}, "[10 9 8 7]"},
		"local":    {true, true, 0, [3]int{many, many, 2}, "[10 9 8 7]"},
		"given":    {false, true, 0, [3]int{many, many, 2}, "[10 9 8 7 6 5 4 3 2 1]"},
		"open":     {true, false, commandrows.Keep * 2, [3]int{1, 1, 1}, "[10 9 8 7 6 5 4 3 2 1]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, now := fill(t, 10, c.local, c.final)
			prune(t, reg, now.Add(c.later), c.bounds[0], c.bounds[1], c.bounds[2])
			if got := fmt.Sprint(left(t, reg)); got != c.want {
				t.Errorf("left are %s, wants %s", got, c.want)
			}
		})
	}
}

// TestPruneKeepsPace: what is over a bound goes in one piece, not one command at a time:
// boards may bring thousands while nobody looks.
func TestPruneKeepsPace(t *testing.T) {
	t.Parallel()
	const many = 1 << 30
	for name, bounds := range map[string][3]int{"commands": {3, many, many}, "boards": {many, 3, many}, "local": {many, many, 1}} {
		reg, now := fill(t, 200, true, true)
		if _, err := commandrows.PruneTo(reg.Commands(), context.Background(), now, bounds[0], bounds[1], bounds[2]); err != nil {
			t.Fatal(err)
		}
		if n := len(left(t, reg)); n > 3 {
			t.Errorf("%s: %d are left after one piece", name, n)
		}
	}
}

// TestFilters: what a list is narrowed to.
func TestFilters(t *testing.T) {
	t.Parallel()
	reg, _ := fill(t, 6, false, true)
	ctx, rows := context.Background(), reg.Commands()
	for want, f := range map[string]commandrows.Filter{
		"[6 5]":   {Limit: 2},
		"[4 3]":   {Limit: 2, Before: 5},
		"[5 3 1]": {Limit: 9, Board: "b0"},
		"[6 4 2]": {Limit: 9, Board: "b1", State: "done"},
		"[]":      {Limit: 9, State: "waiting-approval"},
	} {
		list, err := rows.List(ctx, "default", f)
		ids := []int64{}
		for _, c := range list {
			ids = append(ids, c.ID)
		}
		if err != nil || fmt.Sprint(ids) != want {
			t.Errorf("%+v gives %v, wants %s, %v", f, ids, want, err)
		}
	}
	if _, err := rows.Get(ctx, "other", 1); !errors.Is(err, commandrows.ErrUnknown) {
		t.Error(err)
	}
	if _, err := rows.Find(ctx, [16]byte{9}); !errors.Is(err, commandrows.ErrUnknown) {
		t.Error(err)
	}
	_, boards, err := rows.Of(ctx, "default", "b0", 5, 9)
	if err != nil || len(boards) != 2 || boards[0].Command != 3 {
		t.Errorf("%+v %v", boards, err)
	}
}
