// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package jetson_test

import (
	"io"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device"
	"fulmar/device/devicetest"
	"fulmar/device/jetson"
	"fulmar/device/sensor"
	"fulmar/schema"
)

// read reads the sensors once and gives their readings by series.
func read(t *testing.T, sensors ...device.Sensor) map[string]device.Reading {
	t.Helper()
	m := map[string]device.Reading{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, s := range sensors {
			for _, r := range s.Read(nil) {
				if err := schema.CheckName(r.Series); err != nil {
					t.Errorf("%s: %v", s.Name(), err)
				}
				if _, twice := m[r.Series]; twice {
					t.Errorf("%s is there twice", r.Series)
				}
				m[r.Series] = r
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("a read still waits after 5 s")
	}
	return m
}

func check(t *testing.T, got map[string]device.Reading, want map[string]any) {
	t.Helper()
	for series, w := range want {
		r, ok := got[series]
		switch w := w.(type) {
		case nil:
			if ok {
				t.Errorf("%s is there: %+v", series, r)
			}
		case float64:
			if !ok || r.Quality != schema.QualityGood || math.Abs(r.Value-w) > 1e-9 {
				t.Errorf("%s is %+v (there: %v), want %v", series, r, ok, w)
			}
		case schema.Quality:
			if !ok || r.Quality != w || r.Value != 0 {
				t.Errorf("%s is %+v (there: %v), want %s", series, r, ok, w)
			}
		}
	}
	if t.Failed() {
		t.Logf("all: %v", slices.Sorted(maps.Keys(got)))
	}
}

func board(t *testing.T, name string) (device.Root, map[string]device.Reading) {
	t.Helper()
	root := devicetest.File(t, "testdata/"+name+".tree")
	cfg := sensor.DefaultConfig()
	cfg.Mounts = nil
	all := append(jetson.New(root), sensor.New(cfg, root)...)
	got := read(t, all...)
	for _, s := range all {
		if c, ok := s.(io.Closer); ok {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if root.Kept() != 0 {
		t.Errorf("%d descriptors kept after all sensors are closed", root.Kept())
	}
	return root, got
}

func TestOrinNanoJetPack6(t *testing.T) {
	t.Parallel()
	root, got := board(t, "orin-nano-jp6")
	check(t, got, map[string]any{
		"thermal.cpu_celsius":                           48.562,
		"thermal.gpu_celsius":                           schema.QualityOffline, // gated
		"thermal.cv0_celsius":                           schema.QualityOffline,
		"thermal.cv2_celsius":                           schema.QualityError,
		"thermal.soc0_celsius":                          47.781,
		"thermal.tj_celsius":                            48.562,
		"power.vdd_in_volts":                            4.984,
		"power.vdd_in_amperes":                          1.856,
		"power.vdd_in_watts":                            4984 * 1856 / 1e6,
		"power.vdd_cpu_gpu_cv_watts":                    -4976 * 8 / 1e6, // negative at idle
		"power.total_watts":                             4984 * 1856 / 1e6,
		"power.sum_watts":                               nil,
		"gpu.load_percent":                              43.7,
		"gpu.frequency_hertz":                           624750000.0,
		"throttle.active_count":                         0.0, // the fan, devfreq and hot-surface are not throttling
		"throttle.cpu_active":                           0.0,
		"throttle.hot_surface_active":                   nil,
		"power.mode_id":                                 2.0,
		"fan.pwm_percent":                               40.0,
		"fan.speed_rpm":                                 1843.0,
		"hwmon.nvme.nvme0.composite_celsius":            38.85,
		"hwmon.cpu_thermal.thermal_zone0.temp1_celsius": nil, // the zone has it
		"memory.nvmap_used_bytes":                       524288.0 * 1024,
		"cpufreq.policy4_hertz":                         729.6e6,
	})
	for n := range got {
		if len(n) > 13 && n[:13] == "hwmon.ina3221" {
			t.Errorf("%s: the rails are told twice", n)
		}
	}
	want := map[string]string{"soc": "tegra234", "jetpack": "6.2", "power_mode": "MAXN_SUPER"}
	if f := jetson.Facts(root); !maps.Equal(f, want) {
		t.Errorf("facts %v, want %v", f, want)
	}
	if f := device.Facts(root); f["model"] != "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super" || f["l4t"] != "36.4.3" {
		t.Errorf("facts %v", f)
	}
}

func TestAGXOrinJetPack5(t *testing.T) {
	t.Parallel()
	root, got := board(t, "orin-agx-jp5")
	sum := (843*6170 + 780*3437 + 4968*953 + 1800*341) / 1e6
	check(t, got, map[string]any{
		"thermal.cpu_celsius":         44.5,
		"thermal.gpu_celsius":         -1.5, // below zero is a temperature
		"thermal.cv0_celsius":         schema.QualityOffline,
		"thermal.pmic_celsius":        nil, // a constant
		"thermal.tboard_celsius":      36.25,
		"thermal.fan_est_celsius":     44.0,
		"thermal.iwlwifi_celsius":     schema.QualityError, // below absolute zero
		"power.vdd_gpu_soc_watts":     843 * 6170 / 1e6,
		"power.vddq_vdd2_1v8ao_watts": 1800 * 341 / 1e6,
		"power.nc_watts":              nil,
		"power.total_watts":           nil, // this board has no rail for it
		"power.sum_watts":             sum,
		"throttle.cpu_active":         1.0,
		"throttle.cv0_active":         schema.QualityOffline,
		"throttle.active_count":       1.0,
		"power.mode_id":               2.0, // the default: no status file yet
		"gpu.load_percent":            0.0,
		"gpu.frequency_hertz":         nil,
	})
	want := map[string]string{"soc": "tegra234", "jetpack": "5.1.2", "power_mode": "MODE_30W"}
	if f := jetson.Facts(root); !maps.Equal(f, want) {
		t.Errorf("facts %v, want %v", f, want)
	}
}

// TestNoJetson: on other machines all of it finds nothing, without errors.
func TestNoJetson(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, "-- proc/uptime --\n1.0 1.0\n")
	sensors := jetson.New(root)
	if got := read(t, sensors...); len(got) != 0 {
		t.Errorf("found %v", got)
	}
	for _, s := range sensors {
		if f, ok := s.(device.Finder); !ok || f.Found() != 0 {
			t.Errorf("%s has found something, or cannot tell", s.Name())
		}
	}
	if f := jetson.Facts(root); len(f) != 0 {
		t.Errorf("facts %v", f)
	}
}

func TestOvercurrentIsARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := devicetest.File(t, "testdata/orin-nano-jp6.tree")
		const dir = "sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/"
		s := jetson.NewOvercurrent(root)
		defer s.Close()
		if rs := s.Read(nil); len(rs) != 0 {
			t.Errorf("counts since boot are told as news: %v", rs)
		}
		step := func(after time.Duration, cnt string) map[string]device.Reading {
			time.Sleep(after)
			devicetest.Write(t, root, dir+"oc3_event_cnt", cnt+"\n")
			m := map[string]device.Reading{}
			for _, r := range s.Read(nil) {
				m[r.Series] = r
			}
			return m
		}
		const oc3 = "throttle.oc3_events_per_second"
		check(t, step(10*time.Second, "27466"), map[string]any{oc3: 7.6, "throttle.oc1_events_per_second": 0.0})
		check(t, step(time.Second, "3"), map[string]any{oc3: schema.QualityStale}) // driver loaded anew
		check(t, step(2*time.Second, "5"), map[string]any{oc3: 1.0})
		check(t, step(time.Second, "gone"), map[string]any{oc3: schema.QualityError})
		check(t, step(time.Second, "9"), map[string]any{oc3: nil}) // a new baseline
		check(t, step(time.Second, "10"), map[string]any{oc3: 1.0})
	})
}

// TestLateGPU: the devfreq node appears late at boot, and a rail may go and come
// back under another number.
func TestLateNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := devicetest.File(t, "testdata/orin-nano-jp6.tree")
		devicetest.Remove(t, root, "sys/class/devfreq/17000000.gpu")
		devicetest.Remove(t, root, "sys/devices/platform/bus@0/17000000.gpu/load")
		gpu, power := jetson.NewGPU(root), jetson.NewPower(root)
		defer gpu.Close()
		defer power.Close()
		if rs := gpu.Read(nil); len(rs) != 0 || gpu.Found() != 0 {
			t.Errorf("found %v", rs)
		}
		if rs := power.Read(nil); len(rs) != 10 || power.Found() != 3 {
			t.Errorf("%d readings of %d rails", len(rs), power.Found())
		}
		kept := root.Kept()
		devicetest.Write(t, root, "sys/devices/platform/bus@0/17000000.gpu/load", "1000\n")
		const at = "sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/"
		devicetest.Write(t, root, at+"hwmon7/in1_label", "VDD_IN\n")
		devicetest.Write(t, root, at+"hwmon7/in1_input", "5000\n")
		devicetest.Write(t, root, at+"hwmon7/curr1_input", "1000\n")
		devicetest.Remove(t, root, at+"hwmon1")
		time.Sleep(device.Reprobe)
		m := map[string]device.Reading{}
		for _, r := range power.Read(gpu.Read(nil)) {
			m[r.Series] = r
		}
		check(t, m, map[string]any{"gpu.load_percent": 100.0, "power.vdd_in_watts": 5.0, "power.total_watts": 5.0, "power.vdd_soc_watts": nil})
		if root.Kept() != kept-6+2+1 {
			t.Errorf("%d descriptors kept of %d: old rails are still open", root.Kept(), kept)
		}
	})
}

func TestReadsAllocateNothing(t *testing.T) {
	root := devicetest.File(t, "testdata/orin-nano-jp6.tree")
	var dst []device.Reading
	for _, s := range jetson.New(root) {
		if s.Name() == "power_mode" {
			continue // opens its file each time, once a minute
		}
		s.Read(nil)
		dst = s.Read(dst[:0])
		if n := testing.AllocsPerRun(20, func() { dst = s.Read(dst[:0]) }); n != 0 {
			t.Errorf("%s: %v allocations a read", s.Name(), n)
		}
	}
}
