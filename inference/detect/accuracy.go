// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"cmp"
	"slices"

	"fulmar/schema"
)

// MaxScored is how many boxes of a class and picture, the best ones, are looked at.
const MaxScored = 100

// Pair is what was found in a picture and what is there.
type Pair struct {
	Found, Truth []schema.Box
}

// Accuracy is how good detections are, 0 to 1.
type Accuracy struct {
	// MAP is the mean average precision over classes and the overlaps 0.50 to 0.95;
	// MAP50 that at overlap 0.50 only. Both as COCO computes them: 101 recalls, at
	// most 100 boxes a picture. Crowds are not known here.
	MAP, MAP50 float64
	// Classes is how many classes have truth in these pictures; others do not count.
	Classes int
}

// Evaluate compares detections with the truth over many pictures.
func Evaluate(pairs []Pair) Accuracy {
	classes := map[uint16]bool{}
	for _, p := range pairs {
		for _, b := range p.Truth {
			classes[b.Class] = true
		}
	}
	a := Accuracy{Classes: len(classes)}
	if a.Classes == 0 {
		return a
	}
	// In rising order: sums of floats depend on it.
	names := make([]uint16, 0, len(classes))
	for c := range classes {
		names = append(names, c)
	}
	slices.Sort(names)
	const steps = 10
	for _, c := range names {
		for i := range steps {
			ap := average(pairs, c, 0.5+0.05*float64(i))
			a.MAP += ap / steps
			if i == 0 {
				a.MAP50 += ap
			}
		}
	}
	a.MAP /= float64(a.Classes)
	a.MAP50 /= float64(a.Classes)
	return a
}

// verdict is one detection: its score and whether it is right.
type verdict struct {
	score float32
	right bool
}

// average is the average precision of one class at one overlap.
func average(pairs []Pair, class uint16, least float64) float64 {
	var all []verdict
	truths := 0
	for _, p := range pairs {
		found, truth := best(p.Found, class), only(p.Truth, class)
		truths += len(truth)
		taken := make([]bool, len(truth))
		for _, f := range found {
			at, most := -1, least
			for i := range truth {
				if v := IoU(&f, &truth[i]); !taken[i] && v >= most {
					at, most = i, v
				}
			}
			if at >= 0 {
				taken[at] = true
			}
			all = append(all, verdict{f.Score, at >= 0})
		}
	}
	slices.SortStableFunc(all, func(a, b verdict) int { return cmp.Compare(b.score, a.score) })
	precision, recall := make([]float64, len(all)), make([]float64, len(all))
	right := 0
	for i, v := range all {
		if v.right {
			right++
		}
		precision[i] = float64(right) / float64(i+1)
		recall[i] = float64(right) / float64(truths)
	}
	for i := len(all) - 2; i >= 0; i-- {
		precision[i] = max(precision[i], precision[i+1])
	}
	sum := 0.0
	for i := range 101 {
		at, _ := slices.BinarySearch(recall, float64(i)/100)
		if at < len(all) {
			sum += precision[at]
		}
	}
	return sum / 101
}

func only(boxes []schema.Box, class uint16) []schema.Box {
	var out []schema.Box
	for _, b := range boxes {
		if b.Class == class {
			out = append(out, b)
		}
	}
	return out
}

// best gives the best boxes of a class, in order.
func best(boxes []schema.Box, class uint16) []schema.Box {
	all := only(boxes, class)
	slices.SortStableFunc(all, func(a, b schema.Box) int { return cmp.Compare(b.Score, a.Score) })
	return all[:min(len(all), MaxScored)]
}

// IoU is the intersection over union of two boxes, 0 to 1.
func IoU(a, b *schema.Box) float64 {
	w := float64(min(a.X1, b.X1)) - float64(max(a.X0, b.X0))
	h := float64(min(a.Y1, b.Y1)) - float64(max(a.Y0, b.Y0))
	if !(w > 0 && h > 0) {
		return 0
	}
	area := func(b *schema.Box) float64 { return float64(b.X1-b.X0) * float64(b.Y1-b.Y0) }
	return w * h / (area(a) + area(b) - w*h)
}
