// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package errand

import (
	"strconv"

	"fulmar/inference/worker"
)

// Death tells of a worker's death for the nth time.
func Death(end worker.End, why string, n uint64) string {
	if end == worker.EndDeviceLost {
		return "the inference worker lost the GPU and was started again to get it back, for the " + ordinal(n) + " time; sampling went on"
	}
	return "the inference worker died (" + why + ") and was started again, for the " + ordinal(n) + " time; sampling went on"
}

func ordinal(n uint64) string {
	suffix := "th"
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		suffix = "st"
	case n%10 == 2:
		suffix = "nd"
	case n%10 == 3:
		suffix = "rd"
	}
	return strconv.FormatUint(n, 10) + suffix
}

// Model tells what a model runs on and why. How far a build is does not belong
// into it: that would be news each second.
func Model(m *worker.ModelStatus) string {
	text := "model " + m.Name + " runs on " + m.Engine
	if m.EngineVersion != "" {
		text += " (" + m.EngineVersion + ")"
	}
	if m.Fallback != "" {
		text += ": " + m.Fallback
	}
	return text
}

// Causes are what keeps a worker from being well.
func Causes(w *worker.Status) []string {
	var out []string
	for _, m := range w.Models {
		if m.State == "refused" {
			out = append(out, "model "+m.Name+": "+m.Error)
		}
	}
	for _, c := range w.Cameras {
		if c.State != "running" {
			out = append(out, "camera "+c.Name+": "+c.Error)
		}
	}
	return out
}
