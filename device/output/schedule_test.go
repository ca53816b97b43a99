// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device/output/interlock"
	"fulmar/device/output/kept"
	"fulmar/device/output/kinds"
	"fulmar/schema"
)

// schedules is how many random schedules a test run tries; FULMAR_SIM_SEEDS says more.
const schedules = 400

// TestRandomSchedules: random sets, shutdowns, releases, devices that hang and fail, disks
// that fail, and crashes at each write of the latch, in simulated time. Whatever comes:
// no device hears a value outside its range, too fast, while an interlock holds or while a
// shutdown is latched; a shutdown tries every safe value; what is latched stays latched.
func TestRandomSchedules(t *testing.T) {
	t.Parallel()
	n := schedules
	if s, err := strconv.Atoi(os.Getenv("FULMAR_SIM_SEEDS")); err == nil {
		n = s
	}
	for seed := range n {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) { runSchedule(t, uint64(seed), dir) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// plant is what is outside of fulmard: it outlives a crash.
type plant struct {
	t       *testing.T
	dir     string
	cfg     []Config
	mu      sync.Mutex
	devices map[string]*device
	reading map[string]float64 // NaN: unknown
	fails   bool               // the disk
	lies    bool               // it says so, and has written all the same
	dieAt   int                // die at this write from now; 0 never
	after   bool               // and the write is done
	bank    *Bank
	dead    *bool // the process
	crashed chan struct{}
}

// device takes values, or hangs, or fails.
type device struct {
	p      *plant
	cfg    Config
	value  float64
	at     time.Time
	was    bool
	fault  string
	free   chan struct{} // closed when it no longer hangs
	busy   int
	safeAt time.Time // when its safe value was last said to it
	reads  bool
}

// driver is a process' way to a device.
type driver struct {
	d    *device
	dead *bool
}

func (d *driver) Name() string { return d.d.cfg.Name }

func (d *driver) Set(ctx context.Context, v float64) error {
	p := d.d.p
	p.mu.Lock()
	if *d.dead {
		p.mu.Unlock()
		return errors.New("dead")
	}
	fault, free := d.d.fault, d.d.free
	d.d.heard(v)
	d.d.busy++
	if d.d.busy > 1 {
		p.t.Errorf("%s is spoken with twice at a time", d.d.cfg.Name)
	}
	p.mu.Unlock()
	defer func() { p.mu.Lock(); d.d.busy--; p.mu.Unlock() }()
	switch fault {
	case "hang": // deaf to its context
		<-free
	case "slow":
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	case "fail":
		return errors.New("device fails")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !*d.dead {
		d.d.value = v
	}
	return nil
}

func (d *driver) Get(context.Context) (float64, bool, error) {
	p := d.d.p
	p.mu.Lock()
	fault, free := d.d.fault, d.d.free
	p.mu.Unlock()
	if fault == "hang" {
		<-free
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if fault == "fail" {
		return 0, false, errors.New("device fails")
	}
	return d.d.value, d.d.reads, nil
}

// heard checks a value at the moment that a device hears it. Holds p.mu.
func (d *device) heard(v float64) {
	c, now := d.cfg, time.Now()
	bad := func(format string, args ...any) {
		d.p.t.Errorf("%s hears %v: %s", c.Name, v, fmt.Sprintf(format, args...))
	}
	if !(v >= c.Min && v <= c.Max) || c.Switch() && v != 0 && v != 1 {
		bad("not within %v and %v", c.Min, c.Max)
	}
	active, since, _ := d.p.bank.Safe()
	if c.Safe != nil && v == *c.Safe {
		d.safeAt = now
	} else {
		if active && since != d.p.bank.deps.Clock.Now() {
			bad("a shutdown is latched")
		}
		if d.was && now.Sub(d.at) < c.MinInterval {
			bad("%v after the last", now.Sub(d.at))
		}
		d.p.interlocked(c, bad)
	}
	if jump := math.Abs(v - d.value); c.StepPerS > 0 && d.was && !active && v != *c.Safe && (jump > c.StepPerS*stepTime.Seconds()+1e-9 || now.Sub(d.at) < stepTime) {
		bad("jumps by %v after %v", jump, now.Sub(d.at))
	}
	d.at, d.was = now, true
}

// interlocked knows the interlocks of the outputs below by itself.
func (p *plant) interlocked(c Config, bad func(string, ...any)) {
	temp := p.reading["temp.tj"]
	switch c.Name {
	case "valve":
		if math.IsNaN(temp) || temp > 95 {
			bad("temp.tj is %v", temp)
		}
	case "lamp":
		if load := p.reading["cpu.load"]; math.IsNaN(temp) || math.IsNaN(load) || temp < 0 && load >= 50 {
			bad("temp.tj is %v, cpu.load is %v", temp, load)
		}
	}
}

// Value implements Values.
func (p *plant) Value(name string) (float64, time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.reading[name]
	if math.IsNaN(v) { // by turns not there, too old, and not a number
		return 20, time.Hour, ok
	}
	return v, time.Second, ok
}

func (p *plant) write(path string, b []byte, perm os.FileMode) error {
	p.mu.Lock()
	dead, die, after, fails, lies := *p.dead, false, p.after, p.fails, p.lies
	if p.dieAt > 0 {
		p.dieAt--
		die = p.dieAt == 0
	}
	p.mu.Unlock()
	if fails && lies && !dead && !die {
		_ = os.WriteFile(path, b, perm)
	}
	if dead || fails && !die {
		return errors.New("disk fails")
	}
	if !die || after {
		if err := os.WriteFile(path, b, perm); err != nil { // whole or not at all, as atomicfile does
			return err
		}
	}
	if die {
		p.kill()
		return errors.New("power is gone")
	}
	return nil
}

// kill ends the process: nothing that it does has an effect any more.
func (p *plant) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !*p.dead {
		*p.dead = true
		close(p.crashed)
	}
}

func safeAt(v float64) *float64 { return &v }

func plantConfig(r *rand.Rand) []Config {
	restore := []string{"", kinds.RestoreSafe, kinds.RestoreLast, kinds.RestoreLeave}
	return []Config{
		{Name: "pump", Kind: kinds.KindGPIO, GPIO: nil, Safe: safeAt(0), MinInterval: time.Duration(r.IntN(3)) * time.Second, Restore: restore[r.IntN(4)]},
		{Name: "valve", Kind: kinds.KindSimulated, Max: 100, Safe: safeAt(0), StepPerS: float64(5 + r.IntN(50)), Restore: restore[r.IntN(4)], Interlocks: []interlock.Config{{When: "temp.tj > 95"}}},
		{Name: "lamp", Kind: kinds.KindSimulated, Min: -1, Max: 1, Interlocks: []interlock.Config{{When: "temp.tj < 0 and cpu.load >= 50"}}},
		{Name: "drive", Kind: kinds.KindSimulated, Min: -10, Max: 10, Safe: safeAt(-10), Restore: restore[r.IntN(4)], Timeout: time.Duration(1+r.IntN(8)) * time.Second},
	}
}

func runSchedule(t *testing.T, seed uint64, dir string) {
	r := rand.New(rand.NewPCG(seed, 7))
	p := &plant{t: t, dir: dir, devices: map[string]*device{}, reading: map[string]float64{"temp.tj": 40, "cpu.load": 10}, cfg: plantConfig(r)}
	p.cfg[0].Kind = kinds.KindSimulated // a switch by its range alone
	p.cfg[0].Max = 1
	for _, c := range p.cfg {
		p.devices[c.Name] = &device{p: p, cfg: c.Full(), free: make(chan struct{}), reads: r.IntN(2) == 0}
	}
	m := &model{p: p, r: r}
	stop := m.boot()
	for range 40 {
		m.step()
		select {
		case <-p.crashed:
			stop()
			stop = m.boot()
		default:
		}
		if t.Failed() {
			break
		}
	}
	m.settle()
	stop()
}

// model is what a person knows of the latch.
type model struct {
	p  *plant
	r  *rand.Rand
	wg sync.WaitGroup

	mu      sync.Mutex
	latched int // -1 not, 1 latched, 0 nobody can tell
}

// boot starts a process. stop ends it.
func (m *model) boot() (stop func()) {
	p := m.p
	m.wg.Wait()
	p.mu.Lock()
	dead := new(bool)
	p.dead, p.crashed, p.dieAt = dead, make(chan struct{}), 0
	p.mu.Unlock()
	bank, err := Open(p.cfg, Deps{
		Dir: p.dir, Values: p, Clock: schema.NewClock(1, 0), write: p.write,
		Make: func(c *Config) (Output, error) { return &driver{p.devices[c.Name], dead}, nil },
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.bank = bank
	p.mu.Unlock()
	active, _, _ := bank.Safe()
	m.mu.Lock()
	if m.latched != 0 && active != (m.latched > 0) {
		p.t.Errorf("latched is %v after a restart, wants %v", active, m.latched)
	}
	m.latched = map[bool]int{true: 1, false: -1}[active]
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(p.t.Context())
	var done sync.WaitGroup
	done.Go(func() { _ = bank.Run(ctx) })
	return func() {
		p.kill()
		m.heal()
		cancel()
		m.wg.Wait()
		done.Wait()
		time.Sleep(time.Second) // calls that came late
		synctest.Wait()
	}
}

func (m *model) step() {
	p, r := m.p, m.r
	bank := p.bank
	who := []string{"local/anna", "rule/x", "fleet"}[r.IntN(3)]
	switch r.IntN(12) {
	case 0, 1, 2, 3, 4:
		name := p.cfg[r.IntN(len(p.cfg))].Name
		v := []float64{0, 1, -1, 100, math.NaN(), 50, -10, 101, r.Float64() * 100, r.Float64()*20 - 10, math.Inf(1)}[r.IntN(11)]
		m.wg.Go(func() {
			ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
			defer cancel()
			err := bank.Set(ctx, name, v, who)
			var e *Error
			if err != nil && !errors.As(err, &e) {
				p.t.Errorf("set %s: %T %v", name, err, err)
			}
		})
	case 5:
		m.shutdown(bank)
	case 6, 7:
		m.release(bank, who)
	case 8:
		d := p.devices[p.cfg[r.IntN(len(p.cfg))].Name]
		p.mu.Lock()
		fault := []string{"", "hang", "slow", "fail"}[r.IntN(4)]
		if d.fault == "hang" && fault != "hang" {
			close(d.free)
			d.free = make(chan struct{})
		}
		d.fault = fault
		p.mu.Unlock()
	case 9:
		p.mu.Lock()
		p.reading[[]string{"temp.tj", "cpu.load"}[r.IntN(2)]] = []float64{40, 96, -5, 60, math.NaN()}[r.IntN(5)]
		p.mu.Unlock()
	case 10:
		p.mu.Lock()
		p.fails, p.lies = r.IntN(3) == 0, r.IntN(2) == 0
		p.mu.Unlock()
	case 11:
		p.mu.Lock()
		p.dieAt, p.after = 1+r.IntN(2), r.IntN(2) == 0
		p.mu.Unlock()
		if r.IntN(2) == 0 {
			p.kill()
		}
	}
	if r.IntN(2) == 0 {
		time.Sleep(time.Duration(r.IntN(8000)) * time.Millisecond)
	}
}

// shutdown begins one, and checks that each device heard of it that was there to hear.
func (m *model) shutdown(bank *Bank) {
	p, begun := m.p, time.Now()
	m.mu.Lock()
	m.latched = 0 // until it has returned
	m.mu.Unlock()
	m.wg.Go(func() {
		err := bank.Shutdown(p.t.Context(), "test")
		p.mu.Lock()
		defer p.mu.Unlock()
		if *p.dead || p.bank != bank {
			return
		}
		if took := time.Since(begun); took > 20*time.Second {
			p.t.Errorf("a shutdown took %v", took)
		}
		for _, d := range p.devices {
			if d.cfg.Safe != nil && d.safeAt.Before(begun) && d.busy == 0 && d.fault != "hang" {
				if active, _, _ := bank.Safe(); active && err == nil {
					p.t.Errorf("a shutdown is done and %s was not told", d.cfg.Name)
				}
			}
		}
		if active, _, _ := bank.Safe(); active && err == nil {
			m.mu.Lock()
			m.latched = 1
			m.mu.Unlock()
		}
	})
}

func (m *model) release(bank *Bank, who string) {
	m.wg.Wait() // so that it is known what came after what
	p := m.p
	p.mu.Lock()
	dead := *p.dead
	p.mu.Unlock()
	if dead {
		return
	}
	was, _, _ := bank.Safe()
	err := bank.Release(p.t.Context(), who)
	is, _, _ := bank.Safe()
	m.mu.Lock()
	defer m.mu.Unlock()
	p.mu.Lock()
	dead = *p.dead
	p.mu.Unlock()
	var e *Error
	switch {
	case who != "local/anna" && was && !is:
		p.t.Errorf("%s has released a shutdown", who)
	case err == nil && is:
		p.t.Error("a release is done, and it is still latched")
	case err == nil:
		m.latched = -1
	case was && !is:
		p.t.Errorf("a release failed (%v) and had its effect", err)
	case errors.As(err, &e) && (e.Code == CodeNotDurable || e.Code == CodeShutdown) || dead:
		m.latched = 0 // what the disk has is not known until it is written anew
	}
}

// heal takes all faults away.
func (m *model) heal() {
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	m.p.fails = false
	m.p.dieAt = 0
	for _, d := range m.p.devices {
		if d.fault == "hang" {
			close(d.free)
			d.free = make(chan struct{})
		}
		d.fault = ""
	}
}

// settle: once all faults are gone, what is latched comes to its safe values by itself, and
// is on the disk.
func (m *model) settle() {
	p := m.p
	p.mu.Lock()
	dead := *p.dead
	p.mu.Unlock()
	if dead {
		return
	}
	m.heal()
	m.wg.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()
	active, _, _ := p.bank.Safe()
	if !active {
		return
	}
	p.mu.Lock()
	for _, d := range p.devices {
		if d.cfg.Safe != nil && d.value != *d.cfg.Safe {
			p.t.Errorf("latched and healed, and %s stands at %v", d.cfg.Name, d.value)
		}
	}
	p.mu.Unlock()
	if l, err := kept.ReadLatch(p.dir); err != nil || !l.Active {
		p.t.Errorf("latched, and the disk says %+v, %v", l, err)
	}
}
