// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"fulmar/device"
	"fulmar/schema"
)

const (
	// maxBatch is the largest encoded batch made, in bytes: under schema.MaxRecord
	// with room for the record's head.
	maxBatch = 12 << 10
	// perSeries is what one series needs beside its name: name head (2), number
	// (9), quality (1).
	perSeries = 12
)

// cut tells how many of the readings fit one record.
func cut(rs []device.Reading) int {
	n, size := 0, 0
	for n < len(rs) && n < schema.MaxSeries {
		if size += len(rs[n].Series) + perSeries; size > maxBatch {
			break
		}
		n++
	}
	return n
}

// pack copies the readings into a record's body, which is the receiver's for good.
func pack(rs []device.Reading) *schema.Samples {
	s := &schema.Samples{Series: make([]string, len(rs)), Value: make([]float64, len(rs))}
	for i := range rs {
		s.Series[i], s.Value[i] = rs[i].Series, rs[i].Value
		if rs[i].Quality == schema.QualityGood {
			continue
		}
		if s.Quality == nil {
			s.Quality = make([]schema.Quality, len(rs))
		}
		s.Quality[i] = rs[i].Quality
	}
	return s
}
