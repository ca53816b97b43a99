// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"fulmar/command"
	"fulmar/device/schedule"
	"fulmar/schema"
)

// valueRoom is how many bytes the values of an answer may take: the frame about them is
// small.
const valueRoom = command.MaxValue - 1024

// sensorValue is one reading in the answer of read-sensor-batch. Without a good quality
// it has no value.
type sensorValue struct {
	Value   *float64 `cbor:"value,omitempty"`
	Quality string   `cbor:"quality"`
	AgeS    float64  `cbor:"age_s"` // seconds since it was read
}

type sensorBatch struct {
	Values map[string]sensorValue `cbor:"values"`
	// None are the names that match no series; LeftOut how many values found no room.
	None    []string `cbor:"none,omitempty"`
	LeftOut int      `cbor:"left_out,omitempty"`
}

// batch gives the readings of names and globs, of all that there are; all of them for none.
func batch(all []schedule.Reading, patterns []string) sensorBatch {
	if len(patterns) == 0 {
		patterns = []string{"*"}
	}
	out := sensorBatch{Values: map[string]sensorValue{}}
	room := valueRoom
	for _, p := range patterns {
		found := false
		for _, r := range all {
			if !matches(p, r.Series) {
				continue
			}
			found = true
			if _, there := out.Values[r.Series]; there {
				continue
			}
			if room -= len(r.Series) + 48; room < 0 { // three short keys, two floats, a word
				out.LeftOut++
				continue
			}
			v := sensorValue{Quality: r.Quality.String(), AgeS: r.Age.Round(time.Millisecond).Seconds()}
			if r.Quality == schema.QualityGood {
				v.Value = &r.Value
			}
			out.Values[r.Series] = v
		}
		if !found {
			out.None = append(out.None, p)
		}
	}
	if len(out.None) > 8 {
		out.None = out.None[:8] // enough to see what is wrong
	}
	return out
}

// matches knows '*' as all: names have no levels for people, though they may have slashes.
func matches(pattern, name string) bool {
	flat := func(s string) string { return strings.ReplaceAll(s, "/", "\x00") }
	ok, err := path.Match(flat(pattern), flat(name))
	return err == nil && ok
}

func (s *Service) readSensorBatch() builtin {
	return builtin{
		name: "read-sensor-batch", lane: command.Quick, effect: "gives the newest values of sensors, with their quality and age",
		args: []command.Field{{Name: "sensors", Type: command.Texts, Help: "names or globs of series, thermal.*; without it all"}},
		check: func(a command.Args) error {
			for _, p := range a.Texts("sensors") {
				if _, err := path.Match(p, ""); err != nil {
					return &command.Error{Code: command.CodeArgs, Text: fmt.Sprintf("sensors: %.40q is no glob of series names", p)}
				}
			}
			return nil
		},
		repeat: true, // it has no effect
		do: func(_ context.Context, _ command.Call, a command.Args) (any, error) {
			return batch(s.cfg.Latest.All(), a.Texts("sensors")), nil
		},
	}
}
