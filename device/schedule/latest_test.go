// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device"
	"fulmar/schema"
)

// turns is a sensor whose reading is good, then not.
type turns struct{ q atomic.Uint32 }

func (s *turns) Name() string { return "turns" }

func (s *turns) Read(dst []device.Reading) []device.Reading {
	return device.Append(dst, "turns.value", 7, schema.Quality(s.q.Load()))
}

type seriesCount struct{ n int }

func (s *seriesCount) Samples(_ schema.Time, b *schema.Samples) { s.n += len(b.Series) }

// TestLatest: each good reading is the newest, also one that a rule of change keeps from
// being sent; after one that is not good there is none.
func TestLatest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := schema.NewClock(1, 0)
		latest, sensor, sink := NewLatest(clock), &turns{}, &seriesCount{}
		plan := Plan{Groups: []Group{{Name: "a", Period: 10 * time.Second, Sensors: []string{"*"}}}, OnChange: []OnChange{{Series: "*", Deadband: 1, MaxSilence: time.Hour}}}
		s, err := New(plan, []device.Sensor{sensor}, Deps{Clock: clock, Sink: sink, Latest: latest})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- s.Run(ctx) }()
		defer func() { cancel(); <-done }()
		time.Sleep(5*time.Minute + 3*time.Second)
		synctest.Wait()
		if v, age, ok := latest.Value("turns.value"); v != 7 || !ok || age > 10*time.Second || sink.n != 1 {
			t.Error(v, age, ok, sink.n)
		}
		sensor.q.Store(uint32(schema.QualityOffline))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if v, _, ok := latest.Value("turns.value"); ok {
			t.Error("an offline sensor has a value", v)
		}
		latest.Put("a", 1, schema.QualityGood, clock.Now().Mono)
		if all := latest.All(); len(all) != 2 || all[0] != (Reading{"a", 1, schema.QualityGood, 0}) || all[1].Series != "turns.value" || all[1].Quality != schema.QualityOffline {
			t.Errorf("%+v", all)
		}
	})
}
