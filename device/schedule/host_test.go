// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schedule_test

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device"
	"fulmar/device/jetson"
	"fulmar/device/schedule"
	"fulmar/device/sensor"
	"fulmar/schema"
)

// TestDefaultsOnThisMachine runs what a board runs by default, all sensors and the
// default plan, for three minutes of simulated time on this machine's own files.
func TestDefaultsOnThisMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := device.NewRoot("/")
		cfg := sensor.DefaultConfig()
		cfg.Synthetic = 40
		r := start(t, schedule.DefaultPlan(), append(sensor.New(cfg, root), jetson.New(root)...)...)
		time.Sleep(3 * time.Minute)
		r.end()
		good, largest := map[string]int{}, 0
		for _, rec := range r.sink.take() {
			b, err := schema.Encode(rec.s)
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, len(b))
			for _, n := range rec.s.Series {
				if _, q, _ := rec.value(n); q == schema.QualityGood {
					good[n]++
				}
			}
		}
		// Each of the three groups: 1 s, 10 s, 60 s.
		for series, want := range map[string]int{
			"synthetic.039": 179, "memory.available_bytes": 17, "load.1m": 17, "mount.root.used_percent": 3, "process.rss_bytes": 3,
		} {
			if n := good[series]; n < want || n > want+1 {
				t.Errorf("%s: %d good readings in 3 minutes, want %d; all: %v", series, n, want, slices.Sorted(maps.Keys(good)))
			}
		}
		if st := r.Stats(); st.Missed != 0 || st.Refused != 0 || st.Panics != 0 || root.Kept() != 0 {
			t.Errorf("%+v, %d descriptors kept", st, root.Kept())
		}
		t.Logf("%d series, largest record %d bytes", len(good), largest)
	})
}
