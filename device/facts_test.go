// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"maps"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"fulmar/device"
	"fulmar/device/devicetest"
	"fulmar/schema"
)

func TestFacts(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, `
-- proc/device-tree/model nul --
NVIDIA Jetson AGX Orin Developer Kit
-- proc/sys/kernel/osrelease --
5.10.104-tegra
-- etc/os-release --
NAME="Ubuntu"
PRETTY_NAME="Ubuntu 20.04.6 LTS"
-- etc/nv_tegra_release --
# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 19:57:35 UTC 2023
-- proc/meminfo --
MemTotal:       31395728 kB
-- sys/devices/system/cpu/online --
0-7,10
`)
	want := map[string]string{
		"arch": runtime.GOARCH, "model": "NVIDIA Jetson AGX Orin Developer Kit", "kernel": "5.10.104-tegra",
		"os": "Ubuntu 20.04.6 LTS", "l4t": "35.4.1", "memory_bytes": "32149225472", "cpus": "9",
	}
	if got := device.Facts(root); !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestFactsAreBoundedAndPrintable(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, "-- sys/class/dmi/id/product_name --\n\x1b[31m"+strings.Repeat("x", 9000)+
		"\n-- etc/os-release --\nNAME=x\n-- etc/nv_tegra_release --\n# R36 (beta)\n-- sys/devices/system/cpu/online --\n9-1\n-- proc/sys/kernel/osrelease fifo --\n")
	got := device.Facts(root)
	if len(got) != 2 || len(got["model"]) != 128 || !strings.HasPrefix(got["model"], "[31mxxx") {
		t.Errorf("got %v", got)
	}
}

func TestFactsOfThisMachine(t *testing.T) {
	t.Parallel()
	got := device.Facts(device.NewRoot("/"))
	for _, k := range []string{"arch", "kernel", "os", "memory_bytes", "cpus"} {
		if got[k] == "" {
			t.Errorf("no %s in %v", k, got)
		}
	}
}

func TestBoot(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, "-- proc/sys/kernel/random/boot_id --\nbc07c270-75c8-4ed4-87fe-60ddd9ddb1a0\n")
	if id, err := device.BootID(root); err != nil || id != 0xbc07c27075c84ed4 {
		t.Errorf("%x, %v", id, err)
	}
	devicetest.Write(t, root, "proc/sys/kernel/random/boot_id", "bc07c270-75c8\n")
	if id, err := device.BootID(root); err == nil {
		t.Errorf("half an id is taken as %x", id)
	}
	b, err := device.NewRoot("/").ReadOnce("proc/uptime", 64)
	if err != nil {
		t.Fatal(err)
	}
	up, err := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	mono, err := device.BootMono()
	if err != nil || math.Abs(mono.Seconds()-up) > 5 {
		t.Errorf("boot %v ago, /proc/uptime tells %v s, %v", mono, up, err)
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"VDD_CPU_GPU_CV": "vdd_cpu_gpu_cv", "Tboard@": "tboard", "  ": "", "-x-": "x", "0000:01:00.0": "0000_01_00_0",
		"sum of shunt voltages": "sum_of_shunt_volta", "é": "", "/var/lib": "var_lib",
	} {
		if got := device.Name(in, 18); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]float64{
		"0": 0, "-5": -5, "+7": 7, "0.42": 0.42, "-0.5": -0.5, "-1.25": -1.25, "123456789012345678": 123456789012345678,
	} {
		if got, ok := device.ParseDec([]byte(in)); !ok || got != want {
			t.Errorf("%q is %v %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "-", "1e5", "0x1", "18446744073709551615", "1.", ".5", "1.-5", "1.1234567890", " 1", "nan"} {
		if got, ok := device.ParseDec([]byte(in)); ok {
			t.Errorf("%q is %v", in, got)
		}
	}
}

func TestAppendKeepsItsPromise(t *testing.T) {
	t.Parallel()
	var rs []device.Reading
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		rs = device.Append(rs, "x", v, schema.QualityGood)
	}
	rs = device.Append(rs, "x", 5, schema.QualityOffline)
	for i, q := range []schema.Quality{schema.QualityError, schema.QualityError, schema.QualityOffline} {
		if rs[i].Value != 0 || rs[i].Quality != q {
			t.Errorf("%d: %+v, want 0 %s", i, rs[i], q)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"cpu  1 2 3\n", "0.42", "-5", "", "# R36 (release), REVISION: 4.4, GCID: 41062509", "R1 REVISION: ,", "  \x00 a",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		line, rest := device.NextLine(b)
		if len(line)+len(rest) > len(b) {
			t.Error("line longer than the text")
		}
		field, _ := device.NextField(b)
		if strings.ContainsAny(string(field), " \t\n\r\x00") {
			t.Errorf("field %q has a blank in it", field)
		}
		if v, ok := device.ParseInt(b); ok {
			if w, err := strconv.ParseInt(string(b), 10, 64); err != nil || v != w {
				t.Errorf("%q is %d, strconv tells %d %v", b, v, w, err)
			}
		}
		if v, ok := device.ParseDec(b); ok {
			if w, err := strconv.ParseFloat(string(b), 64); err != nil || math.Abs(v-w) > 1e-9*max(1, math.Abs(w)) {
				t.Errorf("%q is %v, strconv tells %v %v", b, v, w, err)
			}
		}
		if s := device.ParseL4T(string(b)); strings.Trim(s, "0123456789.") != "" {
			t.Errorf("release %q", s)
		}
		if n := device.Name(string(b), 32); n != "" {
			if err := schema.CheckName(n); err != nil || len(n) > 32 {
				t.Errorf("%q made of %q: %v", n, b, err)
			}
		}
	})
}
