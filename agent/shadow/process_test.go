// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/schema"
	"fulmar/twin"
)

// onFolder is a board on a real folder, without a fleet.
func onFolder(dir string) *Shadow {
	base := config.Default()
	return New(Config{
		Tenant: "t", Board: "b", Dir: dir, Clock: schema.BootClock(1), BootKnown: true, Open: open, Base: func() config.Config { return base },
		Apply:  func(context.Context, *config.Config, map[string]twin.Value) error { return nil },
		Health: func() Health { return Health{} },
		Send:   func(context.Context, []byte) error { return nil },
		Tell:   func(schema.Report) {}, Log: slog.New(slog.DiscardHandler),
	})
}

// TestKill: a process that sets without end is killed at some moment, many times over: the
// last value that it said to be set is there, or the next.
func TestKill(t *testing.T) {
	t.Parallel()
	const env = "FULMAR_TEST_SHADOW"
	if dir := os.Getenv(env); dir != "" { // the process
		s := onFolder(dir)
		n := uint64(0)
		if v, _ := s.Get("app.n"); v != nil {
			a, _ := v.Any()
			n, _ = a.(uint64)
		}
		for {
			n++
			if err := s.Set("app.n", twin.Edit{Value: val(t, n)}); err != nil {
				fmt.Println("error", err)
				return
			}
			fmt.Println("set", n)
		}
	}
	dir := t.TempDir()
	last := uint64(0)
	for i := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), env+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, sets := bufio.NewScanner(out), 0
		for lines.Scan() {
			n, ok := strings.CutPrefix(lines.Text(), "set ")
			if !ok {
				t.Fatal(lines.Text())
			}
			if last, err = strconv.ParseUint(n, 10, 64); err != nil {
				t.Fatal(err)
			}
			if sets++; sets == 3+i {
				time.AfterFunc(time.Duration(i)*300*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait() // killed
		v, _ := onFolder(dir).Get("app.n")
		got, err := v.Any()
		if err != nil || got != last && got != last+1 {
			t.Fatalf("kill %d: %v after %d was set (%v)", i, got, last, err)
		}
	}
}

// TestSyncCost prints what a sync costs against sending the whole document, and holds it
// to a bound: a board with 24 keys set, 60 reported.
func TestSyncCost(t *testing.T) {
	simulate(t, func(t *testing.T) {
		r := newRig(t)
		var up, down, ups, downs int
		measured := func(f func()) string {
			u, d, n, m := up, down, ups, downs
			f()
			return fmt.Sprintf("%d messages up, %d down; %d bytes up, %d down", ups-n, downs-m, up-u, down-d)
		}
		c := r.config()
		c.Send = func(ctx context.Context, p []byte) error { up += len(p); ups++; return r.send(ctx, p) }
		r.sh = New(c)
		r.count = func(b []byte) { down += len(b); downs++ }
		r.run()
		defer r.end()
		values := map[string]any{}
		for i := range 24 {
			values[fmt.Sprintf("app.setting%02d", i)] = fmt.Sprintf("value number %d", i)
		}
		reported := map[string]twin.Value{}
		for i := range 60 {
			reported[fmt.Sprintf("output.valve%02d", i)] = val(t, map[string]any{"value": 0.5, "state": "ok", "unit": "%"})
		}
		if err := r.sh.Report(reported); err != nil {
			t.Fatal(err)
		}
		r.edit(values)
		first := measured(func() { r.up(); r.wait(time.Second) })
		whole := up + down
		before := up + down
		same := measured(func() { r.up(); r.wait(time.Second) })
		nothing := up + down - before
		before = up + down
		edit := measured(func() { r.edit(map[string]any{"app.setting07": "another"}); r.wait(time.Second) })
		one := up + down - before
		before = up + down
		report := measured(func() {
			if err := r.sh.Report(map[string]twin.Value{"output.valve07": val(t, map[string]any{"value": 0.6, "state": "ok", "unit": "%"})}); err != nil {
				t.Fatal(err)
			}
			r.wait(time.Second)
		})
		change := up + down - before
		t.Logf("first sync (whole sections): %s\nconnection without a change: %s\none key edited at the fleet: %s\none key reported: %s", first, same, edit, report)
		if nothing*5 > whole || one*5 > whole || change*5 > whole || ups > 8 {
			t.Errorf("whole %d bytes, no change %d, one edit %d, one report %d", whole, nothing, one, change)
		}
	})
}
