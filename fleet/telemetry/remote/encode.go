// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"cmp"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/encoding/protowire"

	"fulmar/fleet/telemetry/points"
)

// encode gives prometheus.WriteRequest of remote write 1.0: samples by series, each
// series in order of time. Written by hand: the generated code comes with gogo/protobuf
// and a copy of each label.
func encode(ps []points.Point) []byte {
	groups := map[*points.Series][]points.Point{}
	var order []*points.Series
	for _, p := range ps {
		if groups[p.Series] == nil {
			order = append(order, p.Series)
		}
		groups[p.Series] = append(groups[p.Series], p)
	}
	var out, one, part []byte
	for _, s := range order {
		one = one[:0]
		s.Labels.Range(func(l labels.Label) { // sorted by name, as wanted
			part = protowire.AppendTag(part[:0], 1, protowire.BytesType)
			part = protowire.AppendString(part, l.Name)
			part = protowire.AppendTag(part, 2, protowire.BytesType)
			part = protowire.AppendString(part, l.Value)
			one = protowire.AppendTag(one, 1, protowire.BytesType)
			one = protowire.AppendBytes(one, part)
		})
		g := groups[s]
		slices.SortStableFunc(g, func(a, b points.Point) int { return cmp.Compare(a.T, b.T) })
		for _, p := range g {
			part = protowire.AppendTag(part[:0], 1, protowire.Fixed64Type)
			part = protowire.AppendFixed64(part, math.Float64bits(p.V))
			part = protowire.AppendTag(part, 2, protowire.VarintType)
			part = protowire.AppendVarint(part, uint64(p.T))
			one = protowire.AppendTag(one, 2, protowire.BytesType)
			one = protowire.AppendBytes(one, part)
		}
		out = protowire.AppendTag(out, 1, protowire.BytesType)
		out = protowire.AppendBytes(out, one)
	}
	return out
}
