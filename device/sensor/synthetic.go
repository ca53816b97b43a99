// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"fmt"
	"math"

	"fulmar/device"
	"fulmar/schema"
)

// Synthetic gives made-up numbers for load tests: n series synthetic.000 and on,
// each a slow wave with its own phase. The k-th read gives the same numbers
// everywhere.
type Synthetic struct {
	series []string
	tick   uint64
}

// NewSynthetic makes n series, at most [MaxSynthetic].
func NewSynthetic(n int) *Synthetic {
	s := &Synthetic{series: make([]string, min(n, MaxSynthetic))}
	for i := range s.series {
		s.series[i] = fmt.Sprintf("synthetic.%03d", i)
	}
	return s
}

// Name names the sensor.
func (s *Synthetic) Name() string { return "synthetic" }

// Found tells how many series it makes.
func (s *Synthetic) Found() int { return len(s.series) }

// Read implements [device.Sensor].
func (s *Synthetic) Read(dst []device.Reading) []device.Reading {
	for i, n := range s.series {
		v := 50 + 25*math.Sin(float64(s.tick)/60+float64(i))
		dst = device.Append(dst, n, math.Round(v*100)/100, schema.QualityGood)
	}
	s.tick++
	return dst
}
