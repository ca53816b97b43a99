// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package book

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/rollouts"
	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

const tenant = registry.DefaultTenant

func made(t testing.TB, n int) *state.Rollout {
	t.Helper()
	s, err := plan.Complete(rest.RolloutSpec{
		Component: "agent", Release: "1.9", Envelope: []byte("signed"),
		Waves: []rest.WaveSpec{{Count: 2, SoakS: 5}, {Percent: 100, SoakS: 5}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var c []plan.Candidate
	for i := range n {
		c = append(c, plan.Candidate{Board: fmt.Sprintf("b%06d", i), Site: fmt.Sprint("s", i%500), Able: true, Reachable: true, Release: "1.8", Facts: map[string]string{"model": "nx16"}})
	}
	p, err := plan.Make(s, c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rollout.New("", tenant, "ann", s, p, time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// drive takes a rollout on until it is over or stop says so: boards take what they get.
func drive(ctx context.Context, b *Book, r *state.Rollout, saved func() error) error {
	now := r.Since
	for i := range r.Boards {
		if r.Boards[i].Since.After(now) {
			now = r.Boards[i].Since
		}
	}
	do := func(ev rollout.Event) error {
		fx, err := rollout.Apply(r, ev, now)
		if err != nil {
			return err
		}
		if len(fx.Changed) == 0 && len(fx.Steps) == 0 && !fx.Head {
			return nil
		}
		_, start := ev.(rollout.Start)
		if err := b.Save(ctx, r, fx, start); err != nil {
			return err
		}
		return saved()
	}
	for range 1000 {
		if r.State == state.Planned {
			epoch, err := b.Epoch(ctx)
			if err != nil {
				return err
			}
			if err := do(rollout.Start{By: rollout.Person{Who: "ann", Author: "ann"}, Epoch: epoch}); err != nil {
				return err
			}
		}
		for i := range r.Boards {
			if x := &r.Boards[i]; x.State == state.BoardAssigned {
				if err := do(rollout.Report{Board: x.Name, Attempt: x.Attempt, Word: "committed", Release: "1.9", Level: "claimed"}); err != nil {
					return err
				}
			}
		}
		if r.State.Over() {
			return nil
		}
		now = now.Add(2 * time.Second)
		if err := do(rollout.Tick{}); err != nil {
			return err
		}
	}
	return errors.New("never over")
}

// TestKilledServer kills a server after each of its transactions, and somewhere on the
// way to the next one. What is stored is then one whole step of the rollout, each step
// is in the audit log, and the rollout goes on to its end.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	total := 0
	for n := 1; total == 0 || n <= total; n++ {
		if n > 100 {
			t.Fatal("more steps than a rollout of 6 boards has")
		}
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), "FULMAR_BOOK_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := 0
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if sc.Text() == "over" {
				total = lines
				break
			}
			if sc.Text() == "saved" {
				if lines++; lines == n {
					time.Sleep(rand.N(3 * time.Millisecond)) // a kill has no right moment
					break
				}
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		survivor(t, dir, lines)
	}
}

func survivor(t *testing.T, dir string, least int) {
	t.Helper()
	ctx := t.Context()
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close() //nolint:errcheck // only a test's
	b := New(reg.Rollouts(), nil)
	r, err := b.Get(ctx, tenant, "r-1")
	if err != nil {
		t.Fatalf("after %d transactions: %v", least, err)
	}
	if err := drive(ctx, b, r, func() error { return nil }); err != nil {
		t.Fatalf("after %d transactions: %v", least, err)
	}
	again, err := b.Get(ctx, tenant, "r-1")
	if err != nil || again.State != state.Done || !strings.Contains(again.Sentence, "done: 6 boards run 1.9") {
		t.Fatalf("after %d transactions: %s, %q, %v", least, again.State, again.Sentence, err)
	}
	steps, err := b.Steps(ctx, tenant, "r-1")
	if err != nil {
		t.Fatal(err)
	}
	var log []string
	err = reg.Audit().Each(ctx, 0, func(e audit.Entry) error {
		if strings.HasPrefix(e.What, "rollout ") {
			log = append(log, strings.TrimPrefix(e.What, "rollout "))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for i := len(steps) - 1; i >= 0; i-- {
		kept = append(kept, steps[i].To)
		if i < len(steps)-1 && steps[i].From != steps[i+1].To {
			t.Errorf("after %d transactions: a step from %s follows one to %s", least, steps[i].From, steps[i+1].To)
		}
	}
	if want := []string{"wave", "soak", "judging", "wave", "soak", "judging", "done"}; !reflect.DeepEqual(kept, want) || !reflect.DeepEqual(log, want) {
		t.Errorf("after %d transactions: steps %v, audit log %v", least, kept, log)
	}
	if _, _, err := reg.Audit().Verify(ctx, audit.Head{}); err != nil {
		t.Errorf("after %d transactions: %v", least, err)
	}
}

// TestChild is the server that is killed.
func TestChild(t *testing.T) {
	dir := os.Getenv("FULMAR_BOOK_CHILD")
	if dir == "" {
		t.Skip("only as the child of TestKilledServer")
	}
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := New(reg.Rollouts(), nil)
	r := made(t, 6)
	saved := func() error { _, err := fmt.Println("saved"); return err }
	if err := b.Create(t.Context(), r, "ann"); err != nil || saved() != nil {
		t.Fatal(err)
	}
	if err := drive(t.Context(), b, r, saved); err != nil {
		t.Fatal(err)
	}
	fmt.Println("over")
	time.Sleep(time.Minute) // to be killed
}

// TestClaims: a board's component is in one rollout at a time, and the last one that had
// it is known.
func TestClaims(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	reg, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close() //nolint:errcheck // only a test's
	b := New(reg.Rollouts(), nil)
	one, two := made(t, 6), made(t, 6)
	for _, r := range []*state.Rollout{one, two} {
		if err := b.Create(ctx, r, "ann"); err != nil {
			t.Fatal(err)
		}
	}
	start := func(r *state.Rollout, epoch uint64) error {
		fx, err := rollout.Apply(r, rollout.Start{By: rollout.Person{Who: "ann", Author: "ann"}, Epoch: epoch}, r.Since)
		if err != nil {
			return err
		}
		return b.Save(ctx, r, fx, true)
	}
	if err := start(one, 1); err != nil {
		t.Fatal(err)
	}
	if err := start(two, 2); !errors.Is(err, rollouts.ErrClaimed) {
		t.Errorf("two rollouts have a board's agent: %v", err)
	}
	if kept, err := b.Get(ctx, tenant, two.ID); err != nil || kept.State != state.Planned {
		t.Errorf("what was refused is kept: %v, %v", kept.State, err)
	}
	has, had, err := b.Others(ctx, tenant, two.ID, "agent")
	if err != nil || len(has) != 6 || len(had) != 6 || has["b000000"] != one.ID {
		t.Errorf("%v, %v, %v", has, had, err)
	}
	if has, _, _ := b.Others(ctx, tenant, two.ID, "worker"); len(has) != 0 {
		t.Errorf("another component is taken too: %v", has)
	}
	if err := drive(ctx, b, one, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if two, err = b.Get(ctx, tenant, two.ID); err != nil {
		t.Fatal(err)
	}
	if err := start(two, 3); err != nil {
		t.Errorf("the first one is over: %v", err)
	}
	if _, had, _ := b.Others(ctx, tenant, one.ID, "agent"); len(had) != 6 {
		t.Errorf("%d boards had something else since", len(had))
	}
	past, err := b.Past(ctx, tenant, one.ID)
	if err != nil || len(past) != 6 || past["b000000"][0].To != "good" {
		t.Errorf("%v, %v", past, err)
	}
	heads, err := b.Heads(ctx, tenant)
	if err != nil || len(heads) != 2 {
		t.Fatal(heads, err)
	}
	if v := heads[1].View(); v.State != "done" || v.Counts["good"] != 6 || v.Waves[0].Counts["good"] != 2 {
		t.Errorf("the view of a head: %+v", v)
	}
	if got, err := b.Get(ctx, tenant, one.ID); err != nil || string(got.Spec.Envelope) != "signed" {
		t.Errorf("%v", err)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "r-", "r-0", "r--1", "r-01", "31", "r-1x", "r-99999999999999999999"} {
		if _, err := Number(bad); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// BenchmarkStart100k keeps a plan of 100,000 boards and starts it.
func BenchmarkStart100k(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		reg, err := registry.Open(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		r, k := made(b, 100_000), New(reg.Rollouts(), nil)
		b.StartTimer()
		begin := time.Now()
		if err := k.Create(b.Context(), r, "ann"); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begin).Milliseconds()), "ms/create")
		begin = time.Now()
		fx, err := rollout.Apply(r, rollout.Start{By: rollout.Person{Who: "ann", Author: "ann"}, Epoch: 1}, r.Since)
		if err != nil {
			b.Fatal(err)
		}
		if err := k.Save(b.Context(), r, fx, true); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begin).Milliseconds()), "ms/start")
		_ = reg.Close()
	}
}
