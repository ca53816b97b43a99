// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"fmt"
	"testing"
	"time"

	"fulmar/device"
	"fulmar/schema"
)

type steady struct {
	name, series string
	v            float64
}

func (s *steady) Name() string { return s.name }

func (s *steady) Read(dst []device.Reading) []device.Reading {
	s.v++
	return device.Append(dst, s.series, s.v, schema.QualityGood)
}

type nowhere struct{ records, readings int }

func (k *nowhere) Samples(_ schema.Time, s *schema.Samples) {
	k.records++
	k.readings += len(s.Series)
}

// tickRig is one group of n sensors, each with its goroutine, whose tick the test
// calls itself.
func tickRig(t testing.TB, n int) (*group, *nowhere) {
	k := new(nowhere)
	s, err := New(Plan{}, nil, Deps{Clock: schema.NewClock(1, 0), Sink: k})
	if err != nil {
		t.Fatal(err)
	}
	g := &group{s: s, plan: Group{Name: "g", Period: time.Minute}, deadline: time.NewTimer(time.Hour)}
	g.deadline.Stop()
	for i := range n {
		j := s.newJob(&steady{name: fmt.Sprintf("s%d", i), series: fmt.Sprintf("s%d.value_celsius", i)})
		g.jobs = append(g.jobs, j)
		done := make(chan error)
		go func() { done <- j.run(t.Context()) }()
		t.Cleanup(func() {
			close(j.start)
			<-done
		})
	}
	return g, k
}

// TestTickAllocations: one tick makes the record (head, names, numbers) and
// nothing else.
func TestTickAllocations(t *testing.T) {
	g, k := tickRig(t, 40)
	g.tick(t.Context())
	if n := testing.AllocsPerRun(100, func() { g.tick(t.Context()) }); n > 3 {
		t.Errorf("%v allocations a tick of 40 sensors, want 3", n)
	}
	if k.readings != 40*k.records || k.records != 102 {
		t.Errorf("%d readings in %d records", k.readings, k.records)
	}
}

// BenchmarkTick is one tick of 40 sensors of one series each.
func BenchmarkTick(b *testing.B) {
	g, _ := tickRig(b, 40)
	b.ReportAllocs()
	for b.Loop() {
		g.tick(b.Context())
	}
}
