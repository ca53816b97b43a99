// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package scene

import "fmt"

// Split is one of the sets of pictures a model is made and judged with. Their
// settings share no value: other seeds, other belts, other light, speed and noise.
// The gate's pictures, which boards judge an engine with, are like those of the test
// and on its belts, but of seeds of their own.
type Split string

// The splits.
const (
	SplitTrain       Split = "train"
	SplitCalibration Split = "calibration"
	SplitTest        Split = "test"
	SplitGate        Split = "gate"
)

// perWorld is how many pictures are taken of one world, far enough apart that no
// parcel is in two of them.
const perWorld = 4

// Sample gives the settings of picture i of the split, and the frame number at
// which it is taken. Four pictures in a row are of one world.
func (s Split) Sample(i int) (Settings, uint64, error) {
	var base uint64
	switch s {
	case SplitTrain:
		base = 1 << 32
	case SplitCalibration:
		base = 2 << 32
	case SplitTest:
		base = 3 << 32
	case SplitGate:
		base = 4 << 32
	default:
		return Settings{}, 0, fmt.Errorf("no split %q (train, calibration, test, gate)", string(s))
	}
	r := newRand(base, uint64(i/perWorld))
	set := Default()
	set.Seed = base + uint64(i/perWorld)
	set.Density = r.in(0.5, 1)
	switch s {
	case SplitTrain:
		set.Belt, set.Speed, set.Blur = r.n(3), r.in(1, 6), r.n(4)
		set.Noise, set.Occluder = r.in(1, 9), 0.4
		set.LightMin = r.in(0.65, 0.95)
		set.LightMax = set.LightMin + r.in(0, 0.3)
	case SplitCalibration:
		set.Belt, set.Speed, set.Blur = 3, r.in(6.1, 7), r.n(4)
		set.Noise, set.Occluder = r.in(9.1, 10), 0.3
		set.LightMin = r.in(0.62, 0.64)
		set.LightMax = set.LightMin + r.in(0.4, 0.6)
	case SplitTest, SplitGate:
		set.Belt, set.Speed, set.Blur = 4+r.n(2), r.in(7.1, 10), 4
		set.Noise, set.Occluder = r.in(10.1, 12), 0.5
		set.LightMin = r.in(0.55, 0.61)
		set.LightMax = set.LightMin + r.in(0.65, 0.75)
	}
	return set, uint64(r.n(200) + i%perWorld*1000), nil
}
