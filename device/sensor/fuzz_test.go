// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor_test

import (
	"os"
	"strings"
	"testing"

	"fulmar/device"
	"fulmar/device/devicetest"
	"fulmar/device/sensor"
	"fulmar/schema"
)

func link(t *testing.T, root device.Root, target, path string) {
	t.Helper()
	if err := os.Symlink(target, root.Path(path)); err != nil {
		t.Fatal(err)
	}
}

// The kernel's files as they are and as they should not be; each fuzz target also
// begins with this machine's own.
func fuzz(f *testing.F, path string, make func(device.Root) device.Sensor, seeds ...string) {
	if b, err := device.NewRoot("/").ReadOnce(path, 1<<12); err == nil {
		f.Add(string(b), string(b))
	}
	for i, s := range seeds {
		f.Add(s, seeds[(i+1)%len(seeds)])
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		root := device.NewRoot(t.TempDir())
		s := make(root)
		for _, text := range []string{first, second, first} {
			devicetest.Write(t, root, path, text)
			rs := s.Read(nil)
			if len(rs) > schema.MaxSeries {
				t.Errorf("%d readings", len(rs))
			}
			for _, r := range rs {
				if err := schema.CheckName(r.Series); err != nil {
					t.Error(err)
				}
				if r.Value != r.Value || r.Value-r.Value != 0 || (r.Quality != schema.QualityGood && r.Value != 0) {
					t.Errorf("%+v", r)
				}
				if strings.HasSuffix(r.Series, "_percent") && !strings.HasPrefix(r.Series, "p") && (r.Value < 0 || r.Value > 100) {
					// process (of all cores) and pressure tell what they are told
					if !strings.HasPrefix(r.Series, "memory.") { // available may exceed total in nonsense
						t.Errorf("%+v is no share", r)
					}
				}
			}
		}
		if c, ok := s.(interface{ Close() error }); ok {
			c.Close()
		}
	})
}

func FuzzStat(f *testing.F) {
	fuzz(f, "proc/stat", func(r device.Root) device.Sensor { return sensor.NewCPU(r, true) },
		"cpu  1 2 3 4 5 6 7 8\ncpu0 1 2 3 4 5 6 7 8\n", "cpu300 1 1 1 1 1 1 1 1", "cpu -1 2", "cpu 999999999999999999 999999999999999999 1 1 1 1 1 999999999999999999\n")
}

func FuzzMeminfo(f *testing.F) {
	fuzz(f, "proc/meminfo", func(r device.Root) device.Sensor { return sensor.NewMemory(r) },
		"MemTotal: 5 kB\nMemAvailable: 7 kB\n", "MemTotal: -5\n:", "SwapTotal: 1\nSwapFree: 2\n")
}

func FuzzDiskstats(f *testing.F) {
	fuzz(f, "proc/diskstats", func(r device.Root) device.Sensor {
		if err := os.MkdirAll(r.Path("sys/block/sda"), 0o755); err != nil {
			f.Fatal(err)
		}
		return sensor.NewDisk(r)
	}, " 8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n", " 8 0 sda 9 2 30 4 5 6 70 8 9 9999 11\n 8 1 ../../etc 1 1 1 1 1 1 1 1 1 1 1", "1 1 sda -1")
}

func FuzzNetDev(f *testing.F) {
	fuzz(f, "proc/net/dev", func(r device.Root) device.Sensor { return sensor.NewNet(r) },
		"eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13\n", "eth0:9 2 3 4 5 6 7 8 9 10 11 12 13\n ../x: 1", ":\n: :")
}

func FuzzLoadavg(f *testing.F) {
	fuzz(f, "proc/loadavg", func(r device.Root) device.Sensor { return sensor.NewLoad(r) },
		"0.00 0.14 0.26 2/95 13826\n", "1 2 3 /", "-1.0 1. .5 2/3")
}

func FuzzUptime(f *testing.F) {
	fuzz(f, "proc/uptime", func(r device.Root) device.Sensor { return sensor.NewUptime(r) }, "1409.71 2419.78\n", "", "x")
}

func FuzzSelfStat(f *testing.F) {
	fuzz(f, "proc/self/stat", func(r device.Root) device.Sensor { return sensor.NewProcess(r) },
		"1 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 50 13 14 15 16 7 18", "1 (", ")")
}

func FuzzSelfStatus(f *testing.F) {
	fuzz(f, "proc/self/status", func(r device.Root) device.Sensor { return sensor.NewProcess(r) },
		"VmRSS:\t 12 kB\nRssAnon:\t4 kB\n", "VmRSS: -1\n", "VmRSS:")
}

func FuzzPressure(f *testing.F) {
	fuzz(f, "proc/pressure/io", func(r device.Root) device.Sensor { return sensor.NewPressure(r) },
		"some avg10=0.00 avg60=0.00\nfull avg10=1.00\n", "some avg10=-1\nfull avg10", "odd avg10=1\nsome\n")
}

// FuzzThermal fuzzes a zone's type and temperature.
func FuzzThermal(f *testing.F) {
	f.Add("cpu-thermal\n", "48500\n")
	f.Add("PMIC-Die", "100000")
	f.Add("\x00\xff--", "-256000000")
	f.Fuzz(func(t *testing.T, typ, temp string) {
		root := device.NewRoot(t.TempDir())
		for _, n := range []string{"0", "1"} { // twice the same type
			devicetest.Write(t, root, "sys/class/thermal/thermal_zone"+n+"/type", typ)
			devicetest.Write(t, root, "sys/class/thermal/thermal_zone"+n+"/temp", temp)
		}
		s := sensor.NewThermal(root)
		rs := s.Read(nil)
		if len(rs) > 2 || (len(rs) == 2 && rs[0].Series == rs[1].Series) {
			t.Errorf("%+v", rs)
		}
		for _, r := range rs {
			if err := schema.CheckName(r.Series); err != nil || r.Value < -273 || r.Value > 1000 {
				t.Errorf("%+v: %v", r, err)
			}
		}
		s.Close()
	})
}
