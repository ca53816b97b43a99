// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"strings"
	"testing"

	"fulmar/device"
	"fulmar/schema"
)

// taker is the part of a sensor that sees outside bytes.
type taker func(dst []device.Reading, b []byte) []device.Reading

// fuzz gives a fresh sensor two texts in turn, as it would read them; each target
// also begins with this machine's own file. What may never come out: a name or a
// number that a record cannot hold, a value without a good quality, a share that
// is none. shares are prefixes of series that are at most 100 percent whatever the
// kernel tells.
func fuzz(f *testing.F, path string, fresh func() taker, shares string, seeds ...string) {
	if b, err := device.NewRoot("/").ReadOnce(path, 1<<12); err == nil {
		f.Add(b, b)
	}
	for i, s := range seeds {
		f.Add([]byte(s), []byte(seeds[(i+1)%len(seeds)]))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		take := fresh()
		for _, text := range [][]byte{first, second, first} {
			rs := take(nil, text)
			if len(rs) > schema.MaxSeries {
				t.Errorf("%d readings", len(rs))
			}
			for _, r := range rs {
				if err := schema.CheckName(r.Series); err != nil {
					t.Error(err)
				}
				if r.Value-r.Value != 0 || (r.Quality != schema.QualityGood && r.Value != 0) {
					t.Errorf("%+v", r)
				}
				share := shares != "" && strings.HasPrefix(r.Series, shares) && strings.HasSuffix(r.Series, "_percent")
				if share && (r.Value < 0 || r.Value > 100.0000001) {
					t.Errorf("%+v is no share", r)
				}
			}
		}
	})
}

func FuzzStat(f *testing.F) {
	fuzz(f, "proc/stat", func() taker { return NewCPU(device.NewRoot("/"), true).take }, "cpu.",
		"cpu  1 2 3 4 5 6 7 8\ncpu0 1 2 3 4 5 6 7 8\n", "cpu300 1 1 1 1 1 1 1 1", "cpu -1 2",
		"cpu 999999999999999999 999999999999999999 1 1 1 1 1 999999999999999999\n")
}

func FuzzMeminfo(f *testing.F) {
	fuzz(f, "proc/meminfo", func() taker { return NewMemory(device.NewRoot("/")).take }, "memory.",
		"MemTotal: 5 kB\nMemAvailable: 7 kB\n", "MemTotal: -5\n:", "SwapTotal: 1\nSwapFree: 2\n")
}

func FuzzDiskstats(f *testing.F) {
	fuzz(f, "proc/diskstats", func() taker { return NewDisk(device.NewRoot("/")).take }, "disk.",
		" 8 0 vda 1 2 3 4 5 6 7 8 9 10 11\n", " 8 0 vda 9 2 30 4 5 6 70 8 9 9999 11\n 8 1 ../../etc 1 1 1 1 1 1 1 1 1 1 1\n", "1 1 vda -1")
}

func FuzzNetDev(f *testing.F) {
	fuzz(f, "proc/net/dev", func() taker { return NewNet(device.NewRoot("/")).take }, "",
		"eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13\n", "eth0:9 2 3 4 5 6 7 8 9 10 11 12 13\n ../x: 1", ":\n: :")
}

func FuzzLoadavg(f *testing.F) {
	fuzz(f, "proc/loadavg", func() taker { return NewLoad(device.NewRoot("/")).take }, "",
		"0.00 0.14 0.26 2/95 13826\n", "1 2 3 /", "-1.0 1. .5 2/3")
}

func FuzzUptime(f *testing.F) {
	fuzz(f, "proc/uptime", func() taker { return NewUptime(device.NewRoot("/")).take }, "", "1409.71 2419.78\n", "", "x")
}

func FuzzSelfStat(f *testing.F) {
	fuzz(f, "proc/self/stat", func() taker { return NewProcess(device.NewRoot("/")).take }, "",
		"1 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 50 13 14 15 16 7 18", "1 (", ")")
}

func FuzzSelfStatus(f *testing.F) {
	fuzz(f, "proc/self/status", func() taker { return takeStatus }, "", "VmRSS:\t 12 kB\nRssAnon:\t4 kB\n", "VmRSS: -1\n", "VmRSS:")
}

func FuzzPressure(f *testing.F) {
	fuzz(f, "proc/pressure/io", func() taker { return NewPressure(device.NewRoot("/")).files[2].take }, "",
		"some avg10=0.00 avg60=0.00\nfull avg10=1.00\n", "some avg10=-1\nfull avg10", "odd avg10=1\nsome\n")
}

// FuzzNames fuzzes what drivers call themselves and their inputs.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"cpu-thermal", "PMIC-Die", "\x00\xff--", "thermal-fan-est", "temp1_input", "in_input", "power3_average"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n := zoneName(s); n != "" && schema.CheckName("thermal."+n+"_2_celsius") != nil {
			t.Errorf("zone %q of %q", n, s)
		}
		if k, stem, ok := kindOf(s); ok && (stem+k.file != s || k.unit == "") {
			t.Errorf("%q is %q of kind %+v", s, stem, k)
		}
	})
}
