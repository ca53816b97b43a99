// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"cmp"
	"slices"

	"fulmar/schema"
)

// matchIoU is how well a detection has to cover a truth to be right: the 0.5 of
// the usual average precision.
const matchIoU = 0.5

// Match compares detections with the truth: the best detection chooses first, each
// takes the truth of its class that it covers best, each truth is taken once. It
// sets Match in both and tells how many detections are right and wrong and how many
// truths were missed. Boxes are sorted by falling score.
func Match(boxes, truth []schema.Box) (right, wrong, missed int) {
	slices.SortStableFunc(boxes, func(a, b schema.Box) int { return cmp.Compare(b.Score, a.Score) })
	for i := range truth {
		truth[i].Match = schema.MatchMissed
	}
	for i := range boxes {
		b := &boxes[i]
		b.Match = schema.MatchFalse
		best, at := matchIoU, -1
		for j := range truth {
			t := &truth[j]
			if t.Class != b.Class || t.Match == schema.MatchTrue {
				continue
			}
			if iou := IoU(b, t); iou >= best {
				best, at = iou, j
			}
		}
		if at >= 0 {
			b.Match, truth[at].Match = schema.MatchTrue, schema.MatchTrue
			right++
		}
	}
	return right, len(boxes) - right, len(truth) - right
}
