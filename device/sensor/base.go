// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"sync/atomic"
	"time"

	"fulmar/device"
	"fulmar/schema"
)

// one is the common part of sensors that read one file of /proc.
type one struct {
	name  string
	file  *device.File
	found atomic.Int32
}

func newOne(root device.Root, name, path string) one {
	return one{name: name, file: root.File(path)}
}

// Name names the sensor.
func (o *one) Name() string { return o.name }

// Found is 1 where the file is there.
func (o *one) Found() int { return int(o.found.Load()) }

// Close gives the file back.
func (o *one) Close() error {
	o.file.Close()
	return nil
}

// read gives the file's bytes, or nil.
func (o *one) read() []byte {
	b, q := o.file.Read()
	if q != schema.QualityGood {
		o.found.Store(0)
		return nil
	}
	o.found.Store(1)
	return b
}

// rate makes a speed of a counter that only rises.
type rate struct {
	last int64
	have bool
}

// per gives the rise per second since the last call, seconds ago. ok is false on
// the first call; after a jump back the quality is stale.
func (r *rate) per(v int64, seconds float64) (float64, schema.Quality, bool) {
	last, had := r.last, r.have
	r.last, r.have = v, true
	switch {
	case !had:
		return 0, schema.QualityStale, false
	case v < last || seconds <= 0:
		return 0, schema.QualityStale, true
	}
	return float64(v-last) / seconds, schema.QualityGood, true
}

// lap measures the time between reads.
type lap struct{ last time.Time }

// seconds since the last call; 0 on the first.
func (l *lap) seconds() float64 {
	now := time.Now()
	defer func() { l.last = now }()
	if l.last.IsZero() {
		return 0
	}
	return now.Sub(l.last).Seconds()
}
