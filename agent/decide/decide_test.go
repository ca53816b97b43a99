// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/agent/autonomy"
	"fulmar/device/rule"
	"fulmar/schema"
	"fulmar/twin"
)

type world struct {
	mu   sync.Mutex
	up   atomic.Bool
	log  []string
	said []string
}

func (w *world) add(to *[]string, form string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*to = append(*to, fmt.Sprintf(form, args...))
}

func (w *world) take(from *[]string) string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(*from)
	s := strings.Join(*from, "; ")
	*from = nil
	return s
}

func (w *world) deps(dir string) Deps {
	return Deps{
		RulesPath: filepath.Join(dir, "rules"), AutonomyPath: filepath.Join(dir, "autonomy"), Up: w.up.Load,
		Give: func(_ context.Context, g Given) error { w.add(&w.log, "%s %s %v", g.Actor, g.Name, g.Args); return nil },
		Set: func(_ context.Context, actor, key string, v any) error {
			w.add(&w.log, "%s sets %s to %v", actor, key, v)
			return nil
		},
		Clear: func(_ context.Context, actor, key string) error {
			w.add(&w.log, "%s clears %s", actor, key)
			return nil
		},
		SafeOf: func(o string) (float64, bool) { return 7, o == "valve" },
		Say: func(subject, state string, _ schema.Severity, text string) {
			w.add(&w.said, "%s %s: %s", subject, state, text)
		},
		Report: func(key string, v map[string]any) {
			if _, err := twin.ValueOf(v); err != nil {
				w.add(&w.said, "%s is no value of a twin: %v", key, err)
			}
		},
	}
}

// TestBoard: rules of the config and the twin, a ladder, being alone, and a lease that
// ends with outputs that are safe, as they come out of the board.
func TestBoard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.up.Store(true)
		plan := Plan{
			Rules: []rule.Spec{{Name: "hot", When: "x.a > 80", Do: []rule.Action{{Command: "set-output", Args: map[string]any{"output": "fan", "value": 1}}}}},
			Shed:  []rule.Step{{When: "x.a > 90", Do: map[string]any{"camera.c.fps": 2}}},
			Autonomy: autonomy.Config{Grace: 10 * time.Second, Back: 10 * time.Second, Allow: []autonomy.Allowance{
				{Name: "fan", Commands: []string{"set-output"}, For: time.Minute, Safe: []string{"valve", "lamp"}},
			}},
		}
		b := New(plan, w.deps(t.TempDir()))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- b.Run(ctx) }()
		read := func(v float64) {
			b.Samples(&schema.Samples{Series: []string{"x.a"}, Value: []float64{v}})
			time.Sleep(1500 * time.Millisecond)
		}
		read(70)
		for v, want := range map[float64]string{95: "rule/hot set-output map[output:fan value:1]"} {
			read(v)
			if got := w.take(&w.log); !strings.Contains(got, want) || !strings.Contains(got, "rule/shed-1 sets camera.c.fps to 2") {
				t.Error(got)
			}
		}
		if got := w.take(&w.said); got != "autonomy connected: the board does not count as alone; "+
			"rule/hot on: rule hot: it is on, for the 1. time: set-output output=fan value=1; rule/shed-1 on: rule shed-1: it is on, for the 1. time: set camera.c.fps to 2" {
			t.Error(got)
		}
		when, err := twin.ValueOf(map[string]any{"when": "app.mode == 'night'", "do": []any{map[string]any{"command": "set-output", "args": map[string]any{"output": "lamp", "value": 0}}}})
		if err != nil {
			t.Fatal(err)
		}
		night, _ := twin.ValueOf("night")
		b.Twin(map[string][]byte{"night": when, "broken": night}, nil, map[string][]byte{"mode": night})
		time.Sleep(time.Second)
		if got := w.take(&w.log); got != "rule/night set-output map[output:lamp value:0]" {
			t.Error(got)
		}
		if got := w.take(&w.said); !strings.HasPrefix(got, "rule/broken refused: rule broken: it is no map of words") {
			t.Error(got)
		}
		b.Twin(nil, nil, nil)
		w.up.Store(false)
		time.Sleep(75 * time.Second)
		if got := w.take(&w.log); got != "autonomy set-output map[output:valve value:7]" && !strings.HasPrefix(got, "autonomy set-output map[output:valve value:7]; autonomy set-output") {
			t.Error(got)
		}
		if got := w.take(&w.said); !strings.Contains(got, "not safe yet, and tried again: output lamp has no safe state") {
			t.Error(got)
		}
		if b.Allow("rule/hot", "set-output") == nil {
			t.Error("allowed after the lease")
		}
		if err := b.do(ctx, rule.Order{Actor: "rule/hot", Action: rule.Action{Command: "set-output"}}); err == nil || errors.Is(err, errNothing) {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestTwinRuleStaysOn: a rule of the twin that is on is on after a restart, and does
// nothing a second time.
func TestTwinRuleStaysOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, dir := &world{}, t.TempDir()
		when, err := twin.ValueOf(map[string]any{"when": "x.a > 80", "do": []any{map[string]any{"command": "set-output", "args": map[string]any{"output": "lamp", "value": 0}}}})
		if err != nil {
			t.Fatal(err)
		}
		deps := w.deps(dir)
		deps.TwinRules = map[string][]byte{"night": when}
		for life, want := range []string{"rule/night set-output map[output:lamp value:0]", ""} {
			b := New(Plan{Autonomy: autonomy.Default()}, deps)
			b.Twin(deps.TwinRules, nil, nil)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- b.Run(ctx) }()
			for range 3 {
				b.Samples(&schema.Samples{Series: []string{"x.a"}, Value: []float64{90}})
				time.Sleep(1500 * time.Millisecond)
			}
			if got := w.take(&w.log); got != want {
				t.Errorf("life %d: %q, wants %q", life, got, want)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}
