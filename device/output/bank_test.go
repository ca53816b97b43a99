// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device/output/interlock"
	"fulmar/device/output/kept"
	"fulmar/device/output/kinds"
	"fulmar/device/output/simulated"
	"fulmar/schema"
)

// lab is a bank in a bubble whose outputs write down what they hear.
type lab struct {
	t    *testing.T
	bank *Bank
	dir  string

	mu    sync.Mutex
	heard []said
	hang  map[string]chan struct{}
	read  map[string]float64 // readings
	age   time.Duration
}

type said struct {
	name  string
	value float64
	at    time.Duration // since the lab began
}

type tap struct {
	*simulated.Output
	l     *lab
	begun time.Time
}

func (o *tap) Set(ctx context.Context, v float64) error {
	o.l.mu.Lock()
	o.l.heard = append(o.l.heard, said{o.Name(), v, time.Since(o.begun)})
	hang := o.l.hang[o.Name()]
	o.l.mu.Unlock()
	if hang != nil {
		<-hang // deaf to the context
	}
	return o.Output.Set(ctx, v)
}

func (l *lab) Value(name string) (float64, time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.read[name]
	return v, l.age, ok
}

func (l *lab) said(name string) (out []said) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.heard {
		if name == "" || s.name == name {
			out = append(out, s)
		}
	}
	return out
}

// newLab starts a bank over dir; what is in l of readings and hangs is kept.
func newLab(t *testing.T, dir string, cfg []Config, change func(*lab, *Deps)) *lab {
	t.Helper()
	l := &lab{t: t, dir: dir, hang: map[string]chan struct{}{}, read: map[string]float64{}}
	begun := time.Now()
	deps := Deps{Dir: dir, Values: l, Clock: schema.NewClock(1, 0), Make: func(c *Config) (Output, error) {
		return &tap{simulated.New(c.Name, *c.Simulated), l, begun}, nil
	}}
	if change != nil {
		change(l, &deps)
	}
	var err error
	if l.bank, err = Open(cfg, deps); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.bank.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var e *Error
	if code == "" && err == nil {
		return
	}
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, wants code %q", err, code)
	}
}

func sim(name string, safe *float64, change func(*Config)) Config {
	c := Config{Name: name, Kind: kinds.KindSimulated, Max: 100, Safe: safe, Restore: kinds.RestoreLeave}
	if change != nil {
		change(&c)
	}
	return c
}

// TestSafeOrder: safe states are begun in the order of the config, each once the one
// before it is there; one that hangs keeps the next waiting for a quarter of a second, and
// one that hung before for none at all.
func TestSafeOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		zero := safeAt(0)
		l := newLab(t, dir, []Config{sim("a", zero, nil), sim("none", nil, nil), sim("b", zero, nil), sim("c", zero, nil), sim("d", zero, nil)}, nil)
		free := make(chan struct{})
		l.mu.Lock()
		l.hang["a"], l.hang["c"] = free, free
		l.mu.Unlock()
		time.Sleep(time.Second)
		wantCode(t, l.bank.Set(t.Context(), "a", 5, "x"), CodeFailed) // hangs from 1 s on
		begun := time.Now()
		err := l.bank.Shutdown(t.Context(), "local/anna: smoke")
		wantCode(t, err, CodeFailed)
		if took := time.Since(begun); took > 2*time.Second+maxStagger {
			t.Errorf("took %v", took)
		}
		if !strings.Contains(err.Error(), "output a") || !strings.Contains(err.Error(), "output c") || strings.Contains(err.Error(), "output b") {
			t.Error(err)
		}
		at := 3*time.Second + comeBack // when the set of a was given up
		want := []said{{"b", 0, at}, {"c", 0, at}, {"d", 0, at + stagger}}
		if got := l.said("")[1:]; !slices.Equal(got, want) {
			t.Errorf("heard %v, wants %v", got, want)
		}
		for _, s := range l.bank.States() {
			if want := map[string]string{"a": StateFailed, "none": StateSet, "b": StateSafe, "c": StateFailed, "d": StateSafe}[s.Name]; s.State != want {
				t.Errorf("%s is %s (%s), wants %s", s.Name, s.State, s.Why, want)
			}
		}
		// A late 5 of a must not stay: it is told its safe value at once when it is back.
		time.Sleep(time.Minute)
		close(free)
		l.mu.Lock()
		clear(l.hang)
		l.mu.Unlock()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := l.said("a"); got[len(got)-1].value != 0 {
			t.Errorf("a heard %v, wants 0 last", got)
		}
		if v, _, _ := l.bank.Read(t.Context(), "a"); v != 0 {
			t.Errorf("a stands at %v", v)
		}
	})
}

// TestLatch: what is latched is so after a restart, is driven first, and is released by a
// person alone.
func TestLatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := []Config{sim("valve", safeAt(10), func(c *Config) { c.Restore = kinds.RestoreLast })}
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, cfg, nil)
		wantCode(t, l.bank.Set(t.Context(), "valve", 70, "local/anna"), "")
		wantCode(t, l.bank.Shutdown(t.Context(), "rule/hot"), "")
		wantCode(t, l.bank.Set(t.Context(), "valve", 70, "local/anna"), CodeShutdown)
		wantCode(t, l.bank.Set(t.Context(), "valve", 10, "local/anna"), CodeShutdown)
	})
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, cfg, nil)
		wantCode(t, l.bank.Set(t.Context(), "valve", 70, "local/anna"), CodeShutdown)
		synctest.Wait()
		if got := l.said(""); len(got) == 0 || got[0].value != 10 {
			t.Errorf("heard %v, wants the safe value first", got)
		}
		for _, who := range []string{"", "rule/hot", "fleet", "local/", "token/7", "anna"} {
			wantCode(t, l.bank.Release(t.Context(), who), CodePerson)
		}
		if active, _, by := l.bank.Safe(); !active || by != "rule/hot" {
			t.Error(active, by)
		}
		wantCode(t, l.bank.Release(t.Context(), "local/anna"), "")
		wantCode(t, l.bank.Set(t.Context(), "valve", 20, "local/anna"), "")
	})
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, cfg, nil)
		time.Sleep(time.Second)
		if v, known, err := l.bank.Read(t.Context(), "valve"); v != 20 || !known || err != nil {
			t.Errorf("stands at %v, %v, %v after a restart, wants the last value 20", v, known, err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, kept.LatchFile), []byte("{\"v\":1,\"act"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, cfg, nil)
		if active, _, by := l.bank.Safe(); !active || !strings.Contains(by, "cannot be read") {
			t.Error("a file that cannot be read is no shutdown", by)
		}
		wantCode(t, l.bank.Set(t.Context(), "valve", 20, "local/anna"), CodeShutdown)
		time.Sleep(time.Second)
		wantCode(t, l.bank.Release(t.Context(), "key/0123456789abcdef"), "")
	})
}

// TestShutdownDuringRelease: a shutdown that comes while a release writes its file wins,
// on the disk too.
func TestShutdownDuringRelease(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Pointer[chan struct{}]
		l := newLab(t, dir, []Config{sim("a", safeAt(0), nil)}, func(_ *lab, d *Deps) {
			d.write = func(path string, b []byte, perm os.FileMode) error {
				if hold := held.Load(); hold != nil && strings.Contains(string(b), "anna") {
					<-*hold
				}
				return os.WriteFile(path, b, perm)
			}
		})
		wantCode(t, l.bank.Shutdown(t.Context(), "one"), "")
		time.Sleep(time.Second)
		hold := make(chan struct{})
		held.Store(&hold)
		released := make(chan error)
		go func() { released <- l.bank.Release(t.Context(), "local/anna") }()
		synctest.Wait()
		down := make(chan error)
		go func() { down <- l.bank.Shutdown(t.Context(), "two") }()
		synctest.Wait()
		close(hold)
		wantCode(t, <-released, CodeShutdown)
		wantCode(t, <-down, "")
		wantCode(t, l.bank.Set(t.Context(), "a", 5, "x"), CodeShutdown)
		synctest.Wait() // what is in doubt is written once more
		if on, err := kept.ReadLatch(dir); err != nil || !on.Active {
			t.Error("the disk says released", on, err)
		}
	})
}

// TestDiskFails: a shutdown is done on a disk that takes nothing, says that it is not
// durable, and becomes so when the disk is back.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fails := errors.New("no space")
		var mu sync.Mutex
		l := newLab(t, dir, []Config{sim("a", safeAt(0), func(c *Config) { c.Simulated = &simulated.Config{Start: 50} })}, func(_ *lab, d *Deps) {
			d.write = func(path string, b []byte, perm os.FileMode) error {
				mu.Lock()
				defer mu.Unlock()
				if fails != nil {
					return fails
				}
				return os.WriteFile(path, b, perm)
			}
		})
		wantCode(t, l.bank.Shutdown(t.Context(), "x"), CodeNotDurable)
		if got := l.said("a"); len(got) == 0 || got[0].value != 0 {
			t.Error("not driven", got)
		}
		mu.Lock()
		fails = nil
		mu.Unlock()
		time.Sleep(2 * retry)
		synctest.Wait()
		if on, err := kept.ReadLatch(dir); err != nil || !on.Active {
			t.Error(on, err)
		}
	})
}

// TestWay: an output with a speed goes in steps, stops where an interlock begins to hold,
// and goes to its safe value alone from a place that nobody knows.
func TestWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, []Config{
			sim("valve", safeAt(0), func(c *Config) {
				c.StepPerS = 10
				c.Interlocks = []interlock.Config{{When: "temp.tj > 95 or output.pump != 0", MaxAge: 5 * time.Second, Message: "the pump runs or it is hot"}}
			}),
			sim("pump", nil, nil),
		}, nil)
		l.mu.Lock()
		l.read["temp.tj"] = 40
		l.mu.Unlock()
		time.Sleep(time.Second)
		begun := time.Now()
		wantCode(t, l.bank.Set(t.Context(), "valve", 21, "x"), "")
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("to 21 at 10 a second took %v, wants ten pauses of 200 ms", took)
		}
		if got := l.said("valve"); len(got) != 11 || got[0].value != 2 || got[10].value != 21 {
			t.Errorf("heard %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		wantCode(t, l.bank.Set(ctx, "valve", 90, "x"), CodeFast)
		go func() {
			time.Sleep(900 * time.Millisecond)
			_ = l.bank.Set(t.Context(), "pump", 1, "x")
		}()
		err := l.bank.Set(t.Context(), "valve", 90, "x")
		wantCode(t, err, CodeInterlock)
		if !strings.Contains(err.Error(), "the pump runs") {
			t.Error(err)
		}
		if v, _, _ := l.bank.Read(t.Context(), "valve"); v < 27 || v > 33 {
			t.Errorf("stopped at %v, wants about 31", v)
		}
		wantCode(t, l.bank.Set(t.Context(), "valve", 0, "x"), "") // safe, whatever holds
		wantCode(t, l.bank.Set(t.Context(), "pump", 0, "x"), "")
		l.mu.Lock()
		l.age = 6 * time.Second
		l.mu.Unlock()
		wantCode(t, l.bank.Set(t.Context(), "valve", 5, "x"), CodeInterlock)
	})
}

// TestUnknownPlace: a speed cannot be kept from a place that nobody knows.
func TestUnknownPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, []Config{sim("valve", safeAt(0), func(c *Config) { c.StepPerS = 10; c.Simulated = &simulated.Config{Fault: simulated.FaultHang} })}, nil)
		wantCode(t, l.bank.Set(t.Context(), "valve", 5, "x"), CodeFast)
		wantCode(t, l.bank.Set(t.Context(), "valve", 0, "x"), CodeFailed)
		for _, s := range l.bank.States() {
			if s.Known || s.State != StateFailed || s.By != "x" {
				t.Errorf("%+v", s)
			}
		}
	})
}

// TestHeldUp: a set waits for the one before it, within its own time; two do not mix.
func TestHeldUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, []Config{sim("valve", safeAt(0), func(c *Config) { c.StepPerS = 10 })}, nil)
		done := make(chan error)
		go func() { done <- l.bank.Set(t.Context(), "valve", 50, "a") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantCode(t, l.bank.Set(ctx, "valve", 1, "b"), CodeBusy)
		go func() { done <- l.bank.Shutdown(t.Context(), "stop") }()
		err1, err2 := <-done, <-done
		for _, err := range []error{err1, err2} {
			if err != nil {
				wantCode(t, err, CodeShutdown)
			}
		}
		if v, _, _ := l.bank.Read(t.Context(), "valve"); v != 0 || (err1 == nil) == (err2 == nil) {
			t.Errorf("stands at %v; %v, %v", v, err1, err2)
		}
	})
}

func TestRestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var cfg []Config
	for _, r := range []string{kinds.RestoreSafe, kinds.RestoreLast, kinds.RestoreLeave, ""} {
		cfg = append(cfg, sim("r"+r, safeAt(10), func(c *Config) { c.Restore = r; c.Simulated = &simulated.Config{Start: 33} }))
	}
	cfg = append(cfg, sim("locked", safeAt(10), func(c *Config) {
		c.Restore = kinds.RestoreLast
		c.Interlocks = []interlock.Config{{When: "temp.tj > 95"}}
	}))
	values := func(t *testing.T, l *lab) (out []float64) {
		for _, c := range cfg {
			v, known, err := l.bank.Read(t.Context(), c.Name)
			if err != nil || !known {
				t.Error(c.Name, v, known, err)
			}
			out = append(out, v)
		}
		return out
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, cfg, nil)
		time.Sleep(time.Second)
		l.mu.Lock()
		l.read["temp.tj"] = 40
		l.mu.Unlock()
		if got := values(t, l); !slices.Equal(got, []float64{10, 10, 33, 10, 10}) {
			t.Errorf("first start: %v", got) // nothing was set last: safe
		}
		for _, c := range cfg {
			wantCode(t, l.bank.Set(t.Context(), c.Name, 70, "x"), "")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, cfg, nil)
		time.Sleep(15 * time.Second)
		if got := values(t, l); !slices.Equal(got, []float64{10, 70, 33, 10, 0}) {
			t.Errorf("second start: %v", got)
		}
		l.mu.Lock()
		l.read["temp.tj"] = 40 // the first reading
		l.mu.Unlock()
		time.Sleep(3 * time.Second)
		if got := values(t, l); !slices.Equal(got, []float64{10, 70, 33, 10, 70}) {
			t.Errorf("second start with readings: %v", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, cfg, nil)
		time.Sleep(2 * restoreWait) // and no reading ever
		if got := values(t, l); !slices.Equal(got, []float64{10, 70, 33, 10, 10}) {
			t.Errorf("third start: %v", got)
		}
	})
}

// TestLimitOnTheWay: a limit holds for an output that is on its way past it.
func TestLimitOnTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, []Config{sim("valve", safeAt(0), func(c *Config) { c.StepPerS = 10 })}, nil)
		time.AfterFunc(2*time.Second, func() {
			if err := l.bank.SetLimits(map[string]Limit{"valve": {math.NaN(), 40}}); err != nil {
				t.Error(err)
			}
		})
		wantCode(t, l.bank.Set(t.Context(), "valve", 90, "x"), CodeRange)
		if v, _, _ := l.bank.Read(t.Context(), "valve"); v > 40 {
			t.Errorf("it stands at %v, narrowed to 40", v)
		}
	})
}

func TestLimitsAndHolds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, dir, []Config{sim("valve", safeAt(0), nil)}, nil)
		nan := math.NaN()
		if err := l.bank.SetLimits(map[string]Limit{"valve": {20, nan}, "vlave": {nan, 5}}); err == nil || !strings.Contains(err.Error(), "vlave") {
			t.Error(err)
		}
		wantCode(t, l.bank.Check("valve", 10), CodeRange) // that another limit is wrong does not open this one
		if err := l.bank.SetLimits(map[string]Limit{"valve": {60, 40}}); err == nil {
			t.Error("a limit that leaves nothing was taken")
		}
		wantCode(t, l.bank.Check("valve", 10), CodeRange)
		if err := l.bank.SetLimits(nil); err != nil {
			t.Error(err)
		}
		wantCode(t, l.bank.Set(t.Context(), "valve", 5, "x"), "")
		if err := l.bank.SetLimits(map[string]Limit{"valve": {-7, 40}}); err != nil {
			t.Fatal(err)
		}
		wantCode(t, l.bank.Set(t.Context(), "valve", 41, "x"), CodeRange)
		if s := l.bank.States()[0]; s.Min != 0 || s.Max != 40 {
			t.Errorf("%+v", s)
		}
		if err := l.bank.SetLimits(map[string]Limit{"valve": {20, nan}}); err != nil {
			t.Fatal(err)
		}
		wantCode(t, l.bank.Check("valve", 10), CodeRange)
		wantCode(t, l.bank.Set(t.Context(), "valve", 0, "x"), "") // the safe value always
		wantCode(t, l.bank.Set(t.Context(), "valve", 41, "x"), "")
		for v, want := range map[float64]bool{41: true, 41.9: true, 43: false} {
			if holds, known, err := l.bank.Holds(t.Context(), "valve", v); holds != want || !known || err != nil {
				t.Error(v, holds, known, err)
			}
		}
		wantCode(t, l.bank.Check("vlave", 10), CodeUnknown)
	})
}
