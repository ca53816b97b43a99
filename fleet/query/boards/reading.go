// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package boards

import (
	"sort"
	"strings"

	"fulmar/fleet/query"
	"fulmar/fleet/web"
	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// reading gives the newest good value of a series, which b.Latest has by name: of the
// series that is called so, or so with a unit at its end. With a * in the name it is the
// highest of all that fit.
func (s subject) reading(name, unit string) (query.Value, bool) {
	rs := s.b.Latest
	if stem, tail, any := strings.Cut(name, "*"); any {
		return highest(rs[from(rs, stem):], stem, tail, unit)
	}
	i := from(rs, name)
	for ; i < len(rs) && strings.HasPrefix(rs[i].Series, name); i++ {
		if ends(rs[i].Series[len(name):], unit) {
			return query.Value{Number: rs[i].Value}, rs[i].Quality == schema.QualityGood
		}
	}
	return query.Value{}, false
}

// fits tells whether what follows a * fits what was written after it.
func fits(rest, tail, unit string) bool {
	if tail == "" {
		return strings.HasSuffix(rest, unit)
	}
	for {
		at := strings.Index(rest, tail)
		if at < 0 {
			return false
		}
		if ends(rest[at+len(tail):], unit) {
			return true
		}
		rest = rest[at+1:]
	}
}

// from gives where names that begin so would begin.
func from(rs []web.Reading, stem string) int {
	return sort.Search(len(rs), func(i int) bool { return rs[i].Series >= stem })
}

// ends tells whether a name may end so after what was asked for.
func ends(end, unit string) bool {
	return end == "" || end == unit || unit == "" && isUnit(end)
}

func highest(rs []web.Reading, stem, tail, unit string) (query.Value, bool) {
	var v query.Value
	found := false
	for i := range rs {
		r := &rs[i]
		if !strings.HasPrefix(r.Series, stem) {
			break
		}
		if r.Quality == schema.QualityGood && (!found || r.Value > v.Number) && fits(r.Series[len(stem):], tail, unit) {
			v.Number, found = r.Value, true
		}
	}
	return v, found
}

// isUnit tells whether the end of a series' name is a unit alone: "_percent", ".celsius".
func isUnit(end string) bool {
	if end[0] != '_' && end[0] != '.' {
		return false
	}
	switch words.Unit(end[1:]) {
	case words.UnitCelsius, words.UnitPercent, words.UnitBytes, words.UnitBytesPerSecond, words.UnitPerSecond, words.UnitHertz,
		words.UnitWatts, words.UnitVolts, words.UnitAmperes, words.UnitRPM, words.UnitSeconds, words.UnitActive, words.UnitCount:
		return true
	}
	return false
}
