// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/bits"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/device"
	"fulmar/internal/run"
	"fulmar/schema"
)

// grace is how long a stop or a change waits for reads and the sink, twice the
// longest default deadline and some.
const grace = 5 * time.Second

// Sink takes the batches. It may block; the group's next ticks then are missed,
// never bunched. The samples are the sink's.
type Sink interface {
	Samples(t schema.Time, s *schema.Samples)
}

// Deps is what a scheduler works with.
type Deps struct {
	Clock schema.Clock
	Sink  Sink
	Log   *slog.Logger // nil discards
	// Seed spreads the first ticks: something that differs between boards and stays
	// the same on one, such as a hash of its name.
	Seed uint64
	// Uptime tells the time since boot, suspend included: device.BootMono on a
	// board. Go's timers stand still in suspend, so only this tells how many ticks
	// were slept through. nil counts none of those.
	Uptime func() (time.Duration, error)
	// Latest is given every reading; nil where nobody asks for the newest ones.
	Latest *Latest
}

// Stats are counts since the scheduler was made.
type Stats struct {
	Ticks    uint64 // ticks that were run
	Missed   uint64 // ticks that passed while a group was busy or the machine asleep
	Records  uint64 // batches handed to the sink
	Readings uint64 // readings in them
	Stale    uint64 // readings among them that were stale
	Refused  uint64 // readings left out because their series is no valid name
	Panics   uint64 // reads that panicked
	// Stuck are the sensors whose read is past its deadline now, sorted.
	Stuck []string
}

// Scheduler reads sensors by a [Plan]. Make one with [New].
type Scheduler struct {
	deps    Deps
	log     *slog.Logger
	changed chan struct{} // cap 1: plan or sensors are new

	stuck  atomic.Int64
	panics atomic.Uint64
	ticks, missed, records,
	readings, stale, refused atomic.Uint64

	mu      sync.Mutex
	plan    Plan
	sensors []device.Sensor
	jobs    []*job
	phase   map[string]phase // where each group stands
}

type phase struct {
	period time.Duration
	next   time.Time
}

// New makes a scheduler. Sensors need different names and comparable values
// (pointers), so that [Scheduler.Replace] can tell which ones stay.
func New(plan Plan, sensors []device.Sensor, deps Deps) (*Scheduler, error) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{deps: deps, log: deps.Log, changed: make(chan struct{}, 1), phase: map[string]phase{}}
	return s, s.Replace(plan, sensors)
}

// Update puts another plan in place while running; groups that keep name and
// period keep their pace. A plan that is not valid changes nothing.
func (s *Scheduler) Update(plan Plan) error {
	s.mu.Lock()
	sensors := s.sensors
	s.mu.Unlock()
	return s.Replace(plan, sensors)
}

// Replace puts another plan and other sensors in place while running. Sensors that
// are in both go on, with their state; those that are gone are closed and must not
// be given again: make new ones.
func (s *Scheduler) Replace(plan Plan, sensors []device.Sensor) error {
	if err := plan.Validate(); err != nil {
		return err
	}
	if err := checkSensors(sensors); err != nil {
		return err
	}
	s.mu.Lock()
	s.plan = Plan{Groups: slices.Clone(plan.Groups), OnChange: slices.Clone(plan.OnChange)}
	s.sensors = slices.Clone(sensors)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // a change is announced already and will see this one too
	}
	return nil
}

func checkSensors(sensors []device.Sensor) error {
	if len(sensors) > MaxSensors {
		return fmt.Errorf("%d sensors, at most %d", len(sensors), MaxSensors)
	}
	seen := map[string]bool{}
	for _, d := range sensors {
		n := d.Name()
		if err := schema.CheckName(n); err != nil {
			return fmt.Errorf("sensor: %w", err)
		}
		if seen[n] {
			return fmt.Errorf("sensor %s is there twice: give each its own name", n)
		}
		seen[n] = true
		if !reflect.TypeOf(d).Comparable() {
			return fmt.Errorf("sensor %s is a %T, wants a pointer", n, d)
		}
	}
	return nil
}

// Stats tells the counts.
func (s *Scheduler) Stats() Stats {
	st := Stats{
		Ticks: s.ticks.Load(), Missed: s.missed.Load(), Records: s.records.Load(), Readings: s.readings.Load(),
		Stale: s.stale.Load(), Refused: s.refused.Load(), Panics: s.panics.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		if j.state.Load() == stateOverdue {
			st.Stuck = append(st.Stuck, j.sensor.Name())
		}
	}
	slices.Sort(st.Stuck)
	return st
}

// Run reads sensors until ctx ends. It returns nil then, or which sensors were
// stuck and could not be stopped.
func (s *Scheduler) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("schedule", func(ctx context.Context) error { return s.supervise(ctx, g) })
	return g.Wait(grace)
}

// supervise runs the groups of one plan after the other.
func (s *Scheduler) supervise(ctx context.Context, g *run.Group) error {
	for ctx.Err() == nil {
		select {
		case <-s.changed: // what is taken up below is the newest
		default:
		}
		groups := s.takeUp(g)
		sub, stop := context.WithCancel(ctx)
		parts := run.New(sub)
		parts.Go("wait", func(ctx context.Context) error { // an empty plan waits too
			select {
			case <-ctx.Done():
			case <-s.changed:
				stop()
			}
			return nil
		})
		for _, gr := range groups {
			parts.Go("group "+gr.plan.Name, gr.loop)
		}
		err := parts.Wait(grace)
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// takeUp makes goroutines for new sensors, ends those of sensors that are gone and
// deals the sensors out to groups.
func (s *Scheduler) takeUp(g *run.Group) []*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.jobs
	s.jobs = make([]*job, 0, len(s.sensors))
	for _, d := range s.sensors {
		i := slices.IndexFunc(old, func(j *job) bool { return j.sensor == d })
		if i >= 0 {
			s.jobs = append(s.jobs, old[i])
			old[i].rules(s.plan.OnChange)
			continue
		}
		j := s.newJob(d)
		s.jobs = append(s.jobs, j)
		g.Go("sensor "+d.Name(), j.run)
	}
	for _, j := range old {
		if !slices.Contains(s.jobs, j) {
			close(j.start)
		}
	}
	return s.deal()
}

func (s *Scheduler) deal() []*group {
	var groups []*group
	taken := map[*job]bool{}
	phases := map[string]phase{}
	for _, p := range s.plan.Groups {
		gr := &group{s: s, plan: p, rules: s.plan.OnChange}
		for _, j := range s.jobs {
			if !taken[j] && p.wants(j.sensor.Name()) {
				taken[j] = true
				gr.jobs = append(gr.jobs, j)
			}
		}
		if len(gr.jobs) == 0 {
			continue
		}
		ph, ok := s.phase[p.Name]
		if !ok || ph.period != p.Period {
			ph = phase{p.Period, time.Now().Add(spread(s.deps.Seed, p.Name, p.Jitter))}
		}
		phases[p.Name] = ph
		gr.next = ph.next
		groups = append(groups, gr)
	}
	s.phase = phases
	return groups
}

// spread picks a moment in [0, span), the same one for the same seed and name.
func spread(seed uint64, name string, span time.Duration) time.Duration {
	if span <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", seed, name)
	x := h.Sum64() // its high bits hardly change with the last letters: mix them
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	hi, _ := bits.Mul64(x, uint64(span))
	return time.Duration(hi)
}
