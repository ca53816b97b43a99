// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"math"

	"fulmar/schema"
)

// Reading is one number of one moment. Series is sensor and unit, see
// [schema.Samples]. Value is 0 where the quality is not good.
type Reading struct {
	Series  string
	Value   float64
	Quality schema.Quality
}

// Sensor is one thing that is read as a whole: a chip, a file of /proc, all
// thermal zones. Name is constant and passes [schema.CheckName]. Read appends
// what it has now and gives dst back; a sensor whose hardware is not there
// appends nothing. Read may block (a bus that hangs) but is never called a second
// time before it has returned. A sensor that keeps files open is an io.Closer too.
type Sensor interface {
	Name() string
	Read(dst []Reading) []Reading
}

// Finder is a sensor that tells how much of its hardware it has found at the last
// look: zones, rails, disks. 0 is "not present". Safe for concurrent use.
type Finder interface{ Found() int }

// Append adds one reading, with the promise of [Reading] kept: a value that is not
// a finite number is an error, a bad one is 0.
func Append(dst []Reading, series string, v float64, q schema.Quality) []Reading {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		q = schema.QualityError
	}
	if q != schema.QualityGood {
		v = 0
	}
	return append(dst, Reading{series, v, q})
}

// Name makes outside text (a label of a driver, a mount point) fit for a part of
// a series name: lower case, everything but letters and digits a single '_', at
// most limit bytes. It may give "".
func Name(s string, limit int) string {
	b := make([]byte, 0, min(len(s), limit))
	for i := 0; i < len(s) && len(b) < limit; i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b = append(b, c)
		case len(b) > 0 && b[len(b)-1] != '_':
			b = append(b, '_')
		}
	}
	for len(b) > 0 && b[len(b)-1] == '_' {
		b = b[:len(b)-1]
	}
	return string(b)
}
