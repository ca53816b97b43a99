// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device"
	"fulmar/device/schedule"
	"fulmar/schema"
)

// fake is a sensor whose reads do what the test says.
type fake struct {
	name   string
	read   func(dst []device.Reading) []device.Reading
	reads  atomic.Int64
	inside atomic.Int64
	closed atomic.Int64
}

func (f *fake) Name() string { return f.name }

func (f *fake) Close() error { f.closed.Add(1); return nil }

func (f *fake) Read(dst []device.Reading) []device.Reading {
	f.reads.Add(1)
	if f.inside.Add(1) > 1 {
		panic("a second read while one is under way")
	}
	defer f.inside.Add(-1)
	return f.read(dst)
}

// counter gives one series, name.count, that counts its reads.
func counter(name string) *fake {
	n := 0.0
	return &fake{name: name, read: func(dst []device.Reading) []device.Reading {
		n++
		return device.Append(dst, name+".count", n, schema.QualityGood)
	}}
}

type record struct {
	at time.Duration // since the test began
	t  schema.Time
	s  *schema.Samples
}

// sink keeps the records and checks each against the limits of the wire.
type sink struct {
	t     *testing.T
	start time.Time

	mu    sync.Mutex
	recs  []record
	block func()
}

func (k *sink) Samples(t schema.Time, s *schema.Samples) {
	if _, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Time: t, Samples: s}); err != nil {
		k.t.Errorf("record does not encode: %v", err)
	}
	k.mu.Lock()
	k.recs = append(k.recs, record{time.Since(k.start), t, s})
	block := k.block
	k.mu.Unlock()
	if block != nil {
		block()
	}
}

func (k *sink) take() []record {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.recs
	k.recs = nil
	return r
}

// value finds a series in the record.
func (r *record) value(series string) (float64, schema.Quality, bool) {
	i := slices.Index(r.s.Series, series)
	switch {
	case i < 0:
		return 0, 0, false
	case r.s.Quality == nil:
		return r.s.Value[i], schema.QualityGood, true
	}
	return r.s.Value[i], r.s.Quality[i], true
}

func (r *record) want(t *testing.T, series string, v float64, q schema.Quality) {
	t.Helper()
	if gv, gq, ok := r.value(series); !ok || gv != v || gq != q {
		t.Errorf("at %v: %s is %v %s (there: %v), want %v %s", r.at, series, gv, gq, ok, v, q)
	}
}

// rig is a scheduler that runs in a bubble.
type rig struct {
	*schedule.Scheduler
	t    *testing.T
	sink *sink
	stop func() error
}

func start(t *testing.T, plan schedule.Plan, sensors ...device.Sensor) *rig {
	t.Helper()
	k := &sink{t: t, start: time.Now()}
	s, err := schedule.New(plan, sensors, schedule.Deps{Clock: schema.NewClock(7, time.Hour), Sink: k, Seed: 42})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return &rig{s, t, k, func() error { cancel(); return <-done }}
}

// end stops the scheduler, which has to end in order.
func (r *rig) end() {
	r.t.Helper()
	if err := r.stop(); err != nil {
		r.t.Errorf("run ended with %v", err)
	}
}

func every(period time.Duration, sensors ...string) schedule.Plan {
	return schedule.Plan{Groups: []schedule.Group{{Name: "g", Period: period, Sensors: sensors}}}
}

func TestPeriodIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := counter("a"), counter("b")
		r := start(t, every(250*time.Millisecond, "*"), a, b)
		time.Sleep(10*time.Second + time.Millisecond)
		r.end()
		recs := r.sink.take()
		if len(recs) != 41 {
			t.Fatalf("%d records in 10 s at 250 ms, want 41", len(recs))
		}
		for i, rec := range recs {
			at := time.Duration(i) * 250 * time.Millisecond
			if rec.at != at || rec.t.Mono != int64(time.Hour+at) || rec.t.Boot != 7 {
				t.Errorf("record %d at %v with time %+v, want %v", i, rec.at, rec.t, at)
			}
			rec.want(t, "a.count", float64(i+1), schema.QualityGood)
			rec.want(t, "b.count", float64(i+1), schema.QualityGood)
		}
		if a.closed.Load() != 1 || b.closed.Load() != 1 {
			t.Error("sensors are not closed once at the end")
		}
	})
}

func TestJitterSpreadsTheFirstTickOnly(t *testing.T) {
	seen := map[time.Duration]bool{}
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			plan := every(time.Second, "*")
			plan.Groups[0].Jitter = time.Minute
			k := &sink{t: t, start: time.Now()}
			s, err := schedule.New(plan, []device.Sensor{counter("a")}, schedule.Deps{Sink: k, Seed: seed})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 70*time.Second)
			defer cancel()
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
			recs := k.take()
			if len(recs) < 10 || recs[0].at >= time.Minute {
				t.Fatalf("seed %d: %d records, first at %v", seed, len(recs), recs[0].at)
			}
			for i := range recs {
				if recs[i].at != recs[0].at+time.Duration(i)*time.Second {
					t.Errorf("seed %d: record %d at %v, the first at %v", seed, i, recs[i].at, recs[0].at)
				}
			}
			seen[recs[0].at/(10*time.Second)] = true
		})
	}
	if len(seen) < 4 {
		t.Errorf("20 boards begin in %d of 6 spans of 10 s: no spread", len(seen))
	}
}

func TestStuckSensorDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := counter("ok")
		free := make(chan struct{})
		n := 0.0
		stuck := &fake{name: "bus"}
		stuck.read = func(dst []device.Reading) []device.Reading {
			if n++; n == 3 {
				<-free
			}
			dst = device.Append(dst, "bus.a", n, schema.QualityGood)
			return device.Append(dst, "bus.b", -n, schema.QualityGood)
		}
		plan := every(time.Second, "*")
		plan.Groups[0].Deadline = 100 * time.Millisecond
		r := start(t, plan, stuck, healthy)
		time.Sleep(9*time.Second + 500*time.Millisecond)
		if st := r.Stats(); !slices.Equal(st.Stuck, []string{"bus"}) || st.Missed != 0 || st.Ticks != 10 {
			t.Errorf("%+v", st)
		}
		if stuck.reads.Load() != 3 {
			t.Errorf("stuck sensor was started %d times, want 3", stuck.reads.Load())
		}
		close(free)
		time.Sleep(3 * time.Second)
		if st := r.Stats(); len(st.Stuck) != 0 || st.Stale != 16 {
			t.Errorf("after it came back: %+v", st)
		}
		r.end()
		recs := r.sink.take()
		for i, rec := range recs {
			at := time.Duration(i) * time.Second
			late := time.Duration(0)
			if i == 2 { // the tick that waits for the deadline, once
				late = plan.Groups[0].Deadline
			}
			if rec.at != at+late || rec.t.Mono != int64(time.Hour+at) {
				t.Errorf("record %d at %v (%v), want %v", i, rec.at, rec.t.Mono, at+late)
			}
			rec.want(t, "ok.count", float64(i+1), schema.QualityGood)
			switch {
			case i < 2:
				rec.want(t, "bus.a", float64(i+1), schema.QualityGood)
			case i < 10:
				rec.want(t, "bus.a", 0, schema.QualityStale)
				rec.want(t, "bus.b", 0, schema.QualityStale)
			default: // the third read's number is never sent: it is of no tick
				rec.want(t, "bus.a", float64(i-6), schema.QualityGood)
			}
		}
		if len(recs) != 13 {
			t.Errorf("%d records, want 13", len(recs))
		}
	})
}

func TestStuckReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		var sensors []device.Sensor
		var entered atomic.Int64
		for i := range schedule.MaxStuck {
			sensors = append(sensors, &fake{name: fmt.Sprintf("s%02d", i), read: func(dst []device.Reading) []device.Reading {
				entered.Add(1)
				<-free
				return dst
			}})
		}
		late := counter("late")
		plan := schedule.Plan{Groups: []schedule.Group{
			{Name: "a", Period: time.Second, Sensors: []string{"s*"}},
			{Name: "b", Period: time.Second, Sensors: []string{"late"}},
		}}
		r := start(t, plan, append(sensors, late)...)
		time.Sleep(5*time.Second + time.Millisecond)
		if n := entered.Load(); n != schedule.MaxStuck {
			t.Errorf("%d reads under way, want %d", n, schedule.MaxStuck)
		}
		if n := late.reads.Load(); n != 1 { // at 0 s, when none was past its deadline yet
			t.Errorf("another read was started %d times though %d are stuck", n, schedule.MaxStuck)
		}
		close(free)
		time.Sleep(5 * time.Second)
		if n := late.reads.Load(); n < 5 {
			t.Errorf("only %d reads after the others came back", n)
		}
		r.end()
		for _, rec := range r.sink.take() {
			if rec.at >= time.Second && rec.at < 5*time.Second {
				rec.want(t, "late.count", 0, schema.QualityStale)
			}
		}
	})
}

func TestStopNamesStuckSensor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		s := &fake{name: "hung", read: func(dst []device.Reading) []device.Reading { <-free; return dst }}
		r := start(t, every(time.Second, "*"), s)
		time.Sleep(2 * time.Second)
		began := time.Now()
		err := r.stop()
		if err == nil || !strings.Contains(err.Error(), "sensor hung") {
			t.Errorf("stop with a hung sensor gave %v", err)
		}
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("stop took %v", took)
		}
		close(free)
		synctest.Wait()
		if s.closed.Load() != 1 {
			t.Error("the sensor that came back is not closed")
		}
	})
}

func TestPanicCostsOneSensor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		mad := &fake{name: "mad", read: func(dst []device.Reading) []device.Reading {
			if n++; n == 2 {
				panic("odd register")
			}
			return device.Append(dst, "mad.v", float64(n), schema.QualityGood)
		}}
		r := start(t, every(time.Second, "*"), mad, counter("ok"))
		time.Sleep(2*time.Second + time.Millisecond)
		r.end()
		recs := r.sink.take()
		recs[0].want(t, "mad.v", 1, schema.QualityGood)
		recs[1].want(t, "mad.v", 0, schema.QualityError)
		recs[2].want(t, "mad.v", 3, schema.QualityGood)
		recs[1].want(t, "ok.count", 2, schema.QualityGood)
		if st := r.Stats(); st.Panics != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// TestMissedTicksAreCountedAndNeverBunched blocks the sink for 3.5 periods, as a
// machine that was paused or is overloaded does.
func TestMissedTicksAreCountedAndNeverBunched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, every(time.Second, "*"), counter("a"))
		n := 0
		time.Sleep(500 * time.Millisecond)
		r.sink.mu.Lock()
		r.sink.block = func() {
			if n++; n == 2 {
				time.Sleep(3500 * time.Millisecond)
			}
		}
		r.sink.mu.Unlock()
		time.Sleep(8*time.Second + 600*time.Millisecond)
		r.end()
		var at []time.Duration
		for _, rec := range r.sink.take() {
			at = append(at, rec.at/time.Second)
		}
		if !slices.Equal(at, []time.Duration{0, 1, 2, 6, 7, 8, 9}) {
			t.Errorf("ticks at seconds %v", at)
		}
		if st := r.Stats(); st.Missed != 3 || st.Ticks != 7 {
			t.Errorf("%+v, want 3 missed", st)
		}
	})
}

// TestSuspend: timers stand still while the machine sleeps, the boot clock goes on.
func TestSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slept atomic.Int64
		boot := time.Now().Add(-time.Hour)
		s, err := schedule.New(every(time.Second, "*"), []device.Sensor{counter("a")}, schedule.Deps{
			Sink:   new(tally),
			Uptime: func() (time.Duration, error) { return time.Since(boot) + time.Duration(slept.Load()), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 9500*time.Millisecond)
		defer cancel()
		time.AfterFunc(3500*time.Millisecond, func() { slept.Add(int64(90*time.Second + 300*time.Millisecond)) })
		time.AfterFunc(5500*time.Millisecond, func() { slept.Add(int64(400 * time.Millisecond)) })
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		if st := s.Stats(); st.Missed != 90 || st.Ticks != 10 {
			t.Errorf("%+v, want 90 missed", st)
		}
	})
}

func TestADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * 60 * 60
		k := &tally{}
		var sensors []device.Sensor
		for i := range 8 {
			sensors = append(sensors, counter(fmt.Sprintf("s%d", i)))
		}
		s, err := schedule.New(every(time.Second, "*"), sensors, schedule.Deps{Sink: k})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), day*time.Second-time.Millisecond)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		st := s.Stats()
		if st.Ticks != day || st.Missed != 0 || st.Stale != 0 || st.Readings != 8*day || k.records != day || k.sum != 8*day*(day+1)/2 {
			t.Errorf("after a day: %+v, %d records, sum %v", st, k.records, k.sum)
		}
	})
}

// tally counts without keeping.
type tally struct {
	records int
	sum     float64
}

func (k *tally) Samples(_ schema.Time, s *schema.Samples) {
	k.records++
	for _, v := range s.Value {
		k.sum += v
	}
}

func TestUpdateWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := counter("a"), counter("b")
		plan := schedule.Plan{Groups: []schedule.Group{
			{Name: "keep", Period: 10 * time.Second, Sensors: []string{"a"}},
			{Name: "fast", Period: time.Second, Sensors: []string{"b"}},
		}}
		r := start(t, plan, a, b)
		time.Sleep(5*time.Second + 500*time.Millisecond)
		if a.reads.Load() != 1 || b.reads.Load() != 6 {
			t.Errorf("%d and %d reads before", a.reads.Load(), b.reads.Load())
		}
		plan.Groups[1].Period = 100 * time.Millisecond
		if err := r.Update(plan); err != nil {
			t.Fatal(err)
		}
		plan.Groups[1].Period = time.Hour // the scheduler has its own copy
		time.Sleep(4 * time.Second)
		if n := b.reads.Load() - 6; n < 40 || n > 41 {
			t.Errorf("%d reads in 4 s at 100 ms", n)
		}
		if a.reads.Load() != 1 {
			t.Error("a group that was not changed lost its pace")
		}
		time.Sleep(time.Second) // 10.5 s
		if a.reads.Load() != 2 {
			t.Errorf("unchanged group: %d reads at 10.5 s, want 2", a.reads.Load())
		}
		plan.Groups[0].Period = -1
		if err := r.Update(plan); err == nil {
			t.Error("a plan that is not valid is taken")
		}
		if err := r.Update(schedule.Plan{}); err != nil { // nothing to read
			t.Fatal(err)
		}
		synctest.Wait()
		n := b.reads.Load()
		time.Sleep(10 * time.Second)
		if b.reads.Load() != n || a.closed.Load() != 0 {
			t.Error("an empty plan reads, or closes sensors that may come back")
		}
		if err := r.Update(every(time.Second, "b")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if b.reads.Load() < n+3 {
			t.Error("reading did not begin again")
		}
		r.end()
	})
}

func TestReplaceClosesWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := counter("a"), counter("b"), counter("c")
		r := start(t, every(time.Second, "*"), a, b)
		time.Sleep(2*time.Second + time.Millisecond)
		if err := r.Replace(every(time.Second, "*"), []device.Sensor{b, c}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if a.closed.Load() != 1 || a.reads.Load() != 3 || b.closed.Load() != 0 || b.reads.Load() != 5 || c.reads.Load() != 2 {
			t.Errorf("a closed %d read %d, b closed %d read %d, c read %d",
				a.closed.Load(), a.reads.Load(), b.closed.Load(), b.reads.Load(), c.reads.Load())
		}
		r.end()
		if a.closed.Load() != 1 || b.closed.Load() != 1 || c.closed.Load() != 1 {
			t.Error("not each sensor is closed once")
		}
	})
}

func TestOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := []float64{20, 20.4, 20.5, 20.6, 20.6, 0, 0, 0, 20.6, 20.6, 20.6, 20.6, 20.6, 20.6, 20.6}
		i := -1
		s := &fake{name: "t", read: func(dst []device.Reading) []device.Reading {
			i++
			q := schema.QualityGood
			if i >= 5 && i <= 7 {
				q = schema.QualityOffline
			}
			return device.Append(dst, "t.case_celsius", values[i], q)
		}}
		plan := every(time.Second, "*")
		plan.OnChange = []schedule.OnChange{
			{Series: "t.*", Deadband: 0.5, MaxSilence: 5 * time.Second},
			{Series: "*", Deadband: 1000, MaxSilence: time.Hour}, // the first that matches counts
		}
		r := start(t, plan, s)
		time.Sleep(14*time.Second + time.Millisecond)
		r.end()
		var at []int
		for _, rec := range r.sink.take() {
			at = append(at, int(rec.at/time.Second))
		}
		// 0 first, 3 moved by 0.6, 5 offline, 8 good again, 13 five seconds of silence.
		if !slices.Equal(at, []int{0, 3, 5, 8, 13}) {
			t.Errorf("sent at seconds %v", at)
		}
	})
}

func TestLargeBatchesAreSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ n, nameLen, records int }{
			{schema.MaxSeries, 11, 1}, {schema.MaxSeries + 1, 11, 2}, {600, 64, 4}, {3, 11, 1},
		} {
			wide := &fake{name: "wide", read: func(dst []device.Reading) []device.Reading {
				for i := range c.n {
					name := fmt.Sprintf("%0*d", c.nameLen, i)
					dst = device.Append(dst, name, 1.0/3+float64(i), schema.Quality(i%2))
				}
				return dst
			}}
			r := start(t, every(time.Second, "*"), wide)
			time.Sleep(500 * time.Millisecond)
			r.end()
			recs := r.sink.take()
			total := 0
			for _, rec := range recs {
				total += len(rec.s.Series)
				b, err := schema.Encode(rec.s)
				if err != nil || len(b) > 12<<10 {
					t.Errorf("record of %d bytes, %v", len(b), err)
				}
			}
			if len(recs) != c.records || total != c.n {
				t.Errorf("%d series with names of %d: %d records, %d readings", c.n, c.nameLen, len(recs), total)
			}
		}
	})
}

func TestBadReadingsAreKeptFromTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fake{name: "odd", read: func(dst []device.Reading) []device.Reading {
			nan := 0.0
			nan /= nan
			return append(dst, device.Reading{Series: "Bad Name", Value: 1}, device.Reading{Series: "odd.nan", Value: nan},
				device.Reading{Series: "odd.off", Value: -256, Quality: schema.QualityOffline})
		}}
		r := start(t, every(time.Second, "*"), s)
		time.Sleep(500 * time.Millisecond)
		r.end()
		recs := r.sink.take()
		recs[0].want(t, "odd.nan", 0, schema.QualityError)
		recs[0].want(t, "odd.off", 0, schema.QualityOffline)
		if len(recs[0].s.Series) != 2 || r.Stats().Refused != 1 {
			t.Errorf("%v, %+v", recs[0].s.Series, r.Stats())
		}
	})
}

func TestSensorsAreChecked(t *testing.T) {
	t.Parallel()
	for _, ss := range [][]device.Sensor{
		{counter("a"), counter("a")},
		{counter("A b")},
		{notComparable{}},
		make([]device.Sensor, schedule.MaxSensors+1),
	} {
		if _, err := schedule.New(schedule.DefaultPlan(), ss, schedule.Deps{}); err == nil {
			t.Errorf("%d sensors are taken", len(ss))
		}
	}
}

type notComparable struct{ _ []int }

func (notComparable) Name() string                               { return "n" }
func (notComparable) Read(dst []device.Reading) []device.Reading { return dst }

var _ io.Closer = (*fake)(nil)
