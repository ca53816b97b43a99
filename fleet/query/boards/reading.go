// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package boards

import (
	"slices"
	"strings"

	"fulmar/fleet/query"
	"fulmar/fleet/web"
	"fulmar/fleet/web/words"
	"fulmar/schema"
)

// reading gives the newest good value of a series, which b.Latest has by name: of the
// series that is called so, or so with a unit at its end. After a * it is the highest
// of all that begin so; the others of that name's unit only, where one is given.
func (s subject) reading(name, unit string) (query.Value, bool) {
	rs := s.b.Latest
	if stem, any := strings.CutSuffix(name, "*"); any {
		return highest(rs[from(rs, stem):], stem, unit)
	}
	i := from(rs, name)
	for ; i < len(rs) && strings.HasPrefix(rs[i].Series, name); i++ {
		end := rs[i].Series[len(name):]
		if end == "" || end == unit || unit == "" && isUnit(end) {
			return query.Value{Number: rs[i].Value}, rs[i].Quality == schema.QualityGood
		}
	}
	return query.Value{}, false
}

// from gives where names that begin so would begin.
func from(rs []web.Reading, stem string) int {
	i, _ := slices.BinarySearchFunc(rs, stem, func(r web.Reading, s string) int { return strings.Compare(r.Series, s) })
	return i
}

func highest(rs []web.Reading, stem, unit string) (query.Value, bool) {
	var v query.Value
	found := false
	for i := range rs {
		r := &rs[i]
		if !strings.HasPrefix(r.Series, stem) {
			break
		}
		if r.Quality == schema.QualityGood && strings.HasSuffix(r.Series, unit) && (!found || r.Value > v.Number) {
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
