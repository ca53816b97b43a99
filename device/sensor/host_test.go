// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"fulmar/device"
	"fulmar/device/sensor"
	"fulmar/schema"
)

// TestThisMachine reads every default sensor on the machine the test runs on.
func TestThisMachine(t *testing.T) {
	t.Parallel()
	root := device.NewRoot("/")
	cfg := sensor.DefaultConfig()
	cfg.PerCore = true
	sensors := sensor.New(cfg, root)
	good := map[string]float64{}
	for round := range 2 { // rates need two
		for _, s := range sensors {
			for _, r := range s.Read(nil) {
				if err := schema.CheckName(r.Series); err != nil {
					t.Errorf("%s: %v", s.Name(), err)
				}
				if r.Quality == schema.QualityGood {
					good[r.Series] = r.Value
				}
			}
		}
		if round == 0 {
			// The kernel counts in clock ticks of 10 ms: burn some, so that the
			// second read has a span to speak of.
			for until := time.Now().Add(60 * time.Millisecond); time.Now().Before(until); {
			}
		}
	}
	if len(good) < 5 {
		t.Fatalf("%d good series on this machine, want at least 5: %v", len(good), good)
	}
	for _, series := range []string{
		"cpu.load_percent", "cpu.core0_load_percent", "memory.total_bytes", "memory.available_bytes", "load.1m",
		"host.uptime_seconds", "process.rss_bytes", "process.cpu_percent", "mount.root.used_percent",
	} {
		if _, ok := good[series]; !ok {
			t.Errorf("%s is not among the good series: %v", series, good)
		}
	}
	for n, v := range good {
		if strings.HasSuffix(n, "_percent") && n != "process.cpu_percent" && (v < 0 || v > 100) {
			t.Errorf("%s is %v", n, v)
		}
	}
	if good["memory.total_bytes"] < 16<<20 || good["process.rss_bytes"] < 1<<20 {
		t.Errorf("memory of %v bytes, process of %v: units?", good["memory.total_bytes"], good["process.rss_bytes"])
	}
	for _, s := range sensors {
		if f, ok := s.(device.Finder); ok {
			t.Logf("%s found %d", s.Name(), f.Found())
		}
		if c, ok := s.(io.Closer); ok {
			c.Close()
		}
	}
	if root.Kept() != 0 {
		t.Errorf("%d descriptors kept after all sensors are closed", root.Kept())
	}
}
