// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor_test

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/goccy/go-yaml"

	"fulmar/device"
	"fulmar/device/devicetest"
	"fulmar/device/sensor"
	"fulmar/schema"
)

// read reads a sensor once and gives its readings by series.
func read(t *testing.T, s device.Sensor) map[string]device.Reading {
	t.Helper()
	m := map[string]device.Reading{}
	for _, r := range s.Read(nil) {
		if err := schema.CheckName(r.Series); err != nil {
			t.Error(err)
		}
		if _, twice := m[r.Series]; twice {
			t.Errorf("%s is there twice", r.Series)
		}
		m[r.Series] = r
	}
	return m
}

// check compares with numbers and qualities, and that nothing else is there.
func check(t *testing.T, got map[string]device.Reading, want map[string]any) {
	t.Helper()
	for series, w := range want {
		r, ok := got[series]
		switch w := w.(type) {
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
	for series := range got {
		if _, ok := want[series]; !ok {
			t.Errorf("%s is there: %+v", series, got[series])
		}
	}
}

func TestCPU(t *testing.T) {
	t.Parallel()
	const tail = "intr 656503 0 0\nctxt 1\n"
	root := devicetest.Tree(t, "-- proc/stat --\ncpu  100 0 100 800 0 0 0 0 0 0\ncpu0 50 0 50 400 0 0 0 0\ncpu1 50 0 50 400 0 0 0 0\n"+tail)
	s := sensor.NewCPU(root, true)
	defer s.Close()
	check(t, read(t, s), map[string]any{"cpu.online_count": 2.0})

	// 200 ticks: 80 busy, 20 iowait, 100 idle; core 1 goes off line.
	devicetest.Write(t, root, "proc/stat", "cpu  130 10 120 900 20 4 6 10 0 0\ncpu0 75 0 75 450 0 0 0 0\n"+tail)
	check(t, read(t, s), map[string]any{
		"cpu.online_count": 1.0, "cpu.load_percent": 40.0, "cpu.user_percent": 20.0, "cpu.system_percent": 10.0,
		"cpu.irq_percent": 5.0, "cpu.iowait_percent": 10.0, "cpu.steal_percent": 5.0, "cpu.core0_load_percent": 50.0,
	})

	// Nothing counted since: stale, not 0. Core 1 comes back and has no past.
	devicetest.Write(t, root, "proc/stat", "cpu  130 10 120 900 20 4 6 10 0 0\ncpu0 75 0 75 450 0 0 0 0\ncpu1 9 0 9 9 0 0 0 0\n"+tail)
	got := read(t, s)
	if got["cpu.load_percent"].Quality != schema.QualityStale || got["cpu.core0_load_percent"].Quality != schema.QualityStale {
		t.Errorf("no tick counted, yet %+v", got)
	}
	if _, ok := got["cpu.core1_load_percent"]; ok {
		t.Error("a core that came back has a load")
	}

	// iowait runs backwards: counts as nothing.
	devicetest.Write(t, root, "proc/stat", "cpu  140 10 120 990 10 4 6 10 0 0\ncpu0 75 0 75 460 0 0 0 0\ncpu1 9 0 9 29 0 0 0 0\n"+tail)
	got = read(t, s)
	if v := got["cpu.load_percent"].Value; v != 10 || got["cpu.core1_load_percent"].Quality != schema.QualityGood {
		t.Errorf("%+v", got)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, "-- proc/meminfo --\nMemTotal:       8000 kB\nMemFree:  1 kB\nMemAvailable:   6000 kB\nSwapTotal: 400 kB\nSwapFree: 100 kB\nNvMapMemUsed: 7 kB\n")
	s := sensor.NewMemory(root)
	check(t, read(t, s), map[string]any{
		"memory.total_bytes": 8000 * 1024.0, "memory.available_bytes": 6000 * 1024.0, "memory.used_percent": 25.0,
		"memory.swap_used_bytes": 300 * 1024.0, "memory.nvmap_used_bytes": 7 * 1024.0,
	})
	devicetest.Write(t, root, "proc/meminfo", "MemTotal: 8000 kB\nMemAvailable: - kB\nx\n")
	check(t, read(t, s), map[string]any{"memory.total_bytes": 8000 * 1024.0})
}

const diskTree = `
-- sys/block/nvme0n1/size --
1
-- sys/block/mmcblk0/size --
1
-- sys/block/zram0/size --
1
-- proc/diskstats --
   7       0 loop0 1 0 8 0 0 0 0 0 0 0 0
 259       0 nvme0n1 100 0 2000 36643 63216 72036 4000 33771 0 500 75633 0 0 0 0 0 0
 259       1 nvme0n1p1 100 0 2000 36643 63216 72036 4000 33771 0 500 75633
 179       0 mmcblk0 1 1 1 1 1 1 1 1 0 1 1
 179      32 mmcblk0boot0 1 1 1 1 1 1 1 1 0 1 1
 254       0 zram0 1 1 1 1 1 1 1 1 0 1 1
`

func TestDiskRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := devicetest.Tree(t, diskTree)
		s := sensor.NewDisk(root)
		defer s.Close()
		check(t, read(t, s), nil)
		time.Sleep(2 * time.Second)
		devicetest.Write(t, root, "proc/diskstats",
			" 259 0 nvme0n1 100 0 2010 0 0 0 4100 0 0 1500 0\n 259 1 nvme0n1p1 9 9 9 9 9 9 9 9 9 9 9\n 179 0 mmcblk0 1 1 0 1 1 1 1 1 0 1 1\n garbage\n")
		check(t, read(t, s), map[string]any{
			"disk.nvme0n1.read_bytes_per_second": 5 * 512.0, "disk.nvme0n1.write_bytes_per_second": 50 * 512.0,
			"disk.nvme0n1.busy_percent":           50.0,
			"disk.mmcblk0.read_bytes_per_second":  schema.QualityStale, // jumped back
			"disk.mmcblk0.write_bytes_per_second": 0.0, "disk.mmcblk0.busy_percent": 0.0,
		})
	})
}

func TestMounts(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, "-- data/x --\n")
	s := sensor.NewMounts(root, []string{"/", "/data", "/not/there"})
	got := read(t, s)
	for _, n := range []string{"mount.root", "mount.data"} {
		used, free := got[n+".used_percent"], got[n+".free_bytes"]
		if used.Quality != schema.QualityGood || used.Value <= 0 || used.Value > 100 || free.Value < 1<<20 {
			t.Errorf("%s: %+v, %+v", n, used, free)
		}
	}
	if got["mount.not_there.free_bytes"].Quality != schema.QualityOffline || s.Found() != 2 {
		t.Errorf("found %d: %+v", s.Found(), got)
	}
}

func TestNetRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const head = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes\n"
		root := devicetest.Tree(t, "-- sys/class/net/usb0/device/x --\n-- sys/class/net/wg0/x --\n-- proc/net/dev --\n"+head+
			"    lo:    3193 29 0 0 0 0 0 0 3193 29 0 0 0 0 0 0\n"+
			"  eth0: 1000 1 1 2 0 0 0 0 5000 1 3 4 0 0 0 0\n"+
			"docker0: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"+
			"   wg0: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"+
			"  usb0:1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n")
		s := sensor.NewNet(root)
		defer s.Close()
		check(t, read(t, s), nil)
		time.Sleep(10 * time.Second)
		devicetest.Write(t, root, "proc/net/dev", head+
			"  eth0: 3000 1 2 2 0 0 0 0 5010 1 4 14 0 0 0 0\n  usb0:101 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\n")
		check(t, read(t, s), map[string]any{
			"net.eth0.rx_bytes_per_second": 200.0, "net.eth0.tx_bytes_per_second": 1.0,
			"net.eth0.errors_per_second": 0.2, "net.eth0.drops_per_second": 1.0,
			"net.usb0.rx_bytes_per_second": 10.0, "net.usb0.tx_bytes_per_second": 0.0,
			"net.usb0.errors_per_second": 0.0, "net.usb0.drops_per_second": 0.0,
		})
	})
}

func TestSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := devicetest.Tree(t, `
-- proc/loadavg --
0.50 1.25 20.00 3/95 13826
-- proc/uptime --
1409.71 2419.78
-- proc/self/stat --
41 (ful ) mard) S 1 2 3 4 5 6 7 8 9 10 100 50 13 14 15 16 7 18
-- proc/self/status --
Name:	fulmard
VmRSS:	   12000 kB
RssAnon:	    4000 kB
-- proc/pressure/cpu --
some avg10=1.50 avg60=0.00 avg300=0.00 total=1
full avg10=9.00 avg60=0.00 avg300=0.00 total=1
-- proc/pressure/memory --
some avg10=2.00 avg60=0.00 avg300=0.00 total=1
full avg10=0.25 avg60=0.00 avg300=0.00 total=1
-- proc/pressure/io dir --
`)
		check(t, read(t, sensor.NewLoad(root)), map[string]any{"load.1m": 0.5, "load.5m": 1.25, "load.15m": 20.0, "load.running_count": 3.0})
		check(t, read(t, sensor.NewUptime(root)), map[string]any{"host.uptime_seconds": 1409.71})
		check(t, read(t, sensor.NewPressure(root)), map[string]any{
			"pressure.cpu_some_percent": 1.5, "pressure.memory_some_percent": 2.0, "pressure.memory_full_percent": 0.25,
		})
		p := sensor.NewProcess(root)
		read(t, p)
		time.Sleep(10 * time.Second)
		devicetest.Write(t, root, "proc/self/stat", "41 (x) S 1 2 3 4 5 6 7 8 9 10 160 90 13 14 15 16 7 18")
		check(t, read(t, p), map[string]any{
			"process.cpu_percent": 10.0, "process.threads_count": 7.0,
			"process.rss_bytes": 12000 * 1024.0, "process.rss_anon_bytes": 4000 * 1024.0,
		})
		devicetest.Write(t, root, "proc/loadavg", "none\n")
		if q := read(t, sensor.NewLoad(root))["load.1m"].Quality; q != schema.QualityError {
			t.Errorf("nonsense is %s", q)
		}
	})
}

// TestThermalZoneThatIsOff fails by its time limit where a zone is read by
// os.ReadFile, which waits for the FIFO for ever.
func TestThermalZoneThatIsOff(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, `
-- sys/class/thermal/thermal_zone0/type --
cv0-thermal
-- sys/class/thermal/thermal_zone0/temp fifo --
-- sys/class/thermal/thermal_zone1/type --
x86_pkg_temp
-- sys/class/thermal/thermal_zone1/temp --
45000
-- sys/class/thermal/thermal_zone2/type --
acpitz
-- sys/class/thermal/thermal_zone2/temp --
0
-- sys/class/thermal/thermal_zone10/type --
acpitz
-- sys/class/thermal/thermal_zone10/temp --
1000
-- sys/class/thermal/thermal_zone11/type fifo --
-- sys/class/thermal/thermal_zone11/temp --
2000
`)
	s := sensor.NewThermal(root)
	got := make(chan map[string]device.Reading, 1)
	go func() { got <- read(t, s) }()
	select {
	case m := <-got:
		check(t, m, map[string]any{
			"thermal.cv0_celsius": schema.QualityOffline, "thermal.cpu_package_celsius": 45.0,
			"thermal.acpitz_celsius": 0.0, "thermal.acpitz_2_celsius": 1.0, "thermal.zone11_celsius": 2.0,
		})
	case <-time.After(5 * time.Second):
		t.Fatal("a zone that is powered down blocks the read")
	}
}

// TestHwmonKeepsItsNames: hwmonN changes between boots and while running, names
// do not, and no chip's number is told under the name of another.
func TestHwmonKeepsItsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := func(dev, n, driver, body string) string {
			p := "sys/devices/" + dev + "/hwmon/" + n
			return "-- sys/class/hwmon/" + n + " -> ../../devices/" + dev + "/hwmon/" + n + " --\n-- " + p + "/device -> ../../../" +
				dev[strings.LastIndex(dev, "/")+1:] + " --\n-- " + p + "/name --\n" + driver + "\n" + strings.ReplaceAll(body, "@", p)
		}
		lm := "-- @/temp1_input --\n%1\n-- @/in0_input --\n3300\n-- @/fan2_input --\n1200\n-- @/power1_input --\n2500000\n-- @/curr1_input --\n1500\n-- @/temp1_max --\n9\n-- @/temp2_label --\nNC\n-- @/temp2_input --\n7\n"
		root := devicetest.Tree(t,
			chip("i2c-1/1-0048", "hwmon0", "lm75", strings.ReplaceAll(lm, "%1", "20000"))+
				chip("i2c-1/1-0049", "hwmon1", "lm75", "-- @/temp1_input --\n30000\n")+
				chip("i2c-1/1-0040", "hwmon2", "ina3221", "-- @/in1_input --\n30000\n"))
		s := sensor.NewHwmon(root, []string{"ina3221"})
		defer s.Close()
		want := map[string]any{
			"hwmon.lm75.1_0048.temp1_celsius": 20.0, "hwmon.lm75.1_0048.in0_volts": 3.3, "hwmon.lm75.1_0048.fan2_rpm": 1200.0,
			"hwmon.lm75.1_0048.power1_watts": 2.5, "hwmon.lm75.1_0048.curr1_amperes": 1.5,
			"hwmon.lm75.1_0049.temp1_celsius": 30.0,
		}
		check(t, read(t, s), want)

		// The first chip goes, the second is probed anew and gets its number.
		devicetest.Remove(t, root, "sys/devices/i2c-1/1-0048")
		devicetest.Remove(t, root, "sys/devices/i2c-1/1-0049/hwmon/hwmon1")
		devicetest.Remove(t, root, "sys/class/hwmon/hwmon0")
		devicetest.Remove(t, root, "sys/class/hwmon/hwmon1")
		const at = "sys/devices/i2c-1/1-0049/hwmon/hwmon0"
		devicetest.Write(t, root, at+"/name", "lm75\n")
		devicetest.Write(t, root, at+"/temp1_input", "31000\n")
		link(t, root, "../../../1-0049", at+"/device")
		link(t, root, "../../devices/i2c-1/1-0049/hwmon/hwmon0", "sys/class/hwmon/hwmon0")
		// The kernel answers ENODEV on the old descriptor and File opens the path
		// anew; a folder of the test's goes on answering, so it is closed here.
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if r := read(t, s)["hwmon.lm75.1_0048.temp1_celsius"]; r.Quality == schema.QualityGood && r.Value == 31 {
			t.Errorf("the second chip's number is told as the first one's: %+v", r)
		}
		time.Sleep(device.Reprobe)
		check(t, read(t, s), map[string]any{"hwmon.lm75.1_0049.temp1_celsius": 31.0})
		if root.Kept() != 1 {
			t.Errorf("%d descriptors kept, want 1", root.Kept())
		}
	})
}

func TestSynthetic(t *testing.T) {
	t.Parallel()
	cfg := sensor.DefaultConfig()
	cfg.Disabled, cfg.Synthetic = []string{"[a-r]*", "thermal", "uptime"}, 40
	all := sensor.New(cfg, device.NewRoot(t.TempDir()))
	if len(all) != 1 || all[0].Name() != "synthetic" {
		t.Fatalf("%d sensors", len(all))
	}
	again := sensor.NewSynthetic(40)
	for range 3 {
		a, b := all[0].Read(nil), again.Read(nil)
		if len(a) != 40 || !slices.Equal(a, b) || a[0].Series != "synthetic.000" || a[0].Value == a[1].Value {
			t.Errorf("%v\n%v", a, b)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	cfg := sensor.DefaultConfig()
	dec := yaml.NewDecoder(strings.NewReader("disabled: [hwmon]\nper_core: true\nmounts: [/, /data]\nsynthetic: 40\n"), yaml.Strict())
	if err := dec.Decode(&cfg); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil || !cfg.PerCore || len(cfg.Mounts) != 2 || cfg.Synthetic != 40 || len(cfg.HwmonSkip) == 0 || cfg.Enabled("hwmon") {
		t.Errorf("%+v: %v", cfg, err)
	}
	for what, spoil := range map[string]func(*sensor.Config){
		"glob":      func(c *sensor.Config) { c.Disabled = []string{"["} },
		"mount":     func(c *sensor.Config) { c.Mounts = []string{"data"} },
		"mounts":    func(c *sensor.Config) { c.Mounts = make([]string, sensor.MaxMounts+1) },
		"synthetic": func(c *sensor.Config) { c.Synthetic = sensor.MaxSynthetic + 1 },
		"negative":  func(c *sensor.Config) { c.Synthetic = -1 },
	} {
		c := sensor.DefaultConfig()
		spoil(&c)
		if c.Validate() == nil {
			t.Errorf("%s: %+v is taken", what, c)
		}
	}
}

// TestReadsAllocateNothing reads this machine's own files.
func TestReadsAllocateNothing(t *testing.T) {
	cfg := sensor.DefaultConfig()
	cfg.PerCore, cfg.Synthetic = true, 40
	var dst []device.Reading
	for _, s := range sensor.New(cfg, device.NewRoot("/")) {
		if s.Name() == "mounts" {
			continue // statfs takes a path, once a minute
		}
		for range 2 {
			dst = s.Read(dst[:0])
		}
		if n := testing.AllocsPerRun(50, func() { dst = s.Read(dst[:0]) }); n != 0 {
			t.Errorf("%s: %v allocations a read", s.Name(), n)
		}
	}
}

// BenchmarkHost is one read of each of this machine's sensors.
func BenchmarkHost(b *testing.B) {
	sensors := sensor.New(sensor.DefaultConfig(), device.NewRoot("/"))
	var dst []device.Reading
	b.ReportAllocs()
	for b.Loop() {
		dst = dst[:0]
		for _, s := range sensors {
			dst = s.Read(dst)
		}
	}
	b.ReportMetric(float64(len(dst)), "series")
}

func link(t *testing.T, root device.Root, target, path string) {
	t.Helper()
	if err := os.Symlink(target, root.Path(path)); err != nil {
		t.Fatal(err)
	}
}
