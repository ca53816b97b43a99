// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package jetson

import (
	"strings"
	"time"

	"fulmar/device"
	"fulmar/schema"
)

const maxNodes = 64 // cooling devices, devfreq nodes and chips looked at, each; an AGX Orin has 20

// New makes the sensors power, gpu, throttle, overcurrent, power_mode and fan. Each
// sits on another bus or mailbox, so that none waits for another.
func New(root device.Root) []device.Sensor {
	return []device.Sensor{
		NewPower(root), NewGPU(root), NewThrottle(root), NewOvercurrent(root), NewPowerMode(root), NewFan(root),
	}
}

// GPU tells gpu.load_percent and gpu.frequency_hertz.
type GPU struct{ *device.Folder }

// NewGPU looks for the load file and the devfreq node of the GPU.
func NewGPU(root device.Root) *GPU {
	return &GPU{device.NewFolder("gpu", root, lookGPU)}
}

func lookGPU(root device.Root) []device.Attribute {
	var as []device.Attribute
	node := gpuNode(root)
	if p := gpuLoad(root, node); p != "" {
		as = append(as, device.Attribute{Series: "gpu.load_percent", File: root.Attr(p), Scale: 0.1}) // per mille
	}
	if p := node + "/cur_freq"; node != "" && root.Exists(p) {
		as = append(as, device.Attribute{Series: "gpu.frequency_hertz", File: root.Attr(p), Scale: 1})
	}
	return as
}

// gpuLoad tries the places of the JetPack releases in order, newest first, then
// what the devfreq node points at. A Thor has none of them.
func gpuLoad(root device.Root, node string) string {
	for _, p := range [...]string{
		"sys/devices/platform/bus@0/17000000.gpu/load",  // Orin, JetPack 6
		"sys/devices/platform/17000000.gpu/load",        // Orin
		"sys/devices/platform/17000000.ga10b/load",      // Orin
		"sys/devices/17000000.ga10b/load",               // Orin, JetPack 5
		"sys/devices/17000000.gv11b/load",               // Xavier
		"sys/devices/17000000.gp10b/load",               // TX2
		"sys/devices/57000000.gpu/load",                 // Nano
		"sys/devices/platform/host1x/57000000.gpu/load", // Nano
		"sys/devices/gpu.0/load",                        // link in some releases
		"sys/devices/platform/gpu.0/load",               // link in some releases
	} {
		if root.Exists(p) {
			return p
		}
	}
	if p := node + "/device/load"; node != "" && root.Exists(p) {
		return p
	}
	return ""
}

// gpuNode finds the GPU among the devfreq nodes by the name of its device tree
// node; "" where there is none (yet: it appears late at boot).
func gpuNode(root device.Root) string {
	const dir = "sys/class/devfreq"
	names, _ := root.List(dir)
	for _, n := range names[:min(len(names), maxNodes)] {
		switch root.Text(dir + "/" + n + "/device/of_node/name") {
		case "gv11b", "gp10b", "ga10b", "gb10b", "gpu":
			return dir + "/" + n
		}
		if n == "gpu-gpc-0" { // Thor
			return dir + "/" + n
		}
	}
	return ""
}

// Throttle tells which throttle alerts are on: throttle.cpu_active is 0 or 1, and
// throttle.active_count their number. The fan, devfreq and the hot-surface alert
// are cooling devices too and no throttling: the last toggles hundreds of times an
// hour at 70 °C.
type Throttle struct{ *device.Folder }

// NewThrottle reads the cooling devices of /sys/class/thermal.
func NewThrottle(root device.Root) *Throttle {
	return &Throttle{device.NewFolder("throttle", root, lookThrottle)}
}

func lookThrottle(root device.Root) []device.Attribute {
	const dir = "sys/class/thermal"
	names, _ := root.List(dir)
	var as []device.Attribute
	for n := range device.Numbered(names, "cooling_device") {
		p := root.Real(dir + "/" + n)
		what, ok := strings.CutSuffix(root.Text(p+"/type"), "-throttle-alert")
		if what = device.Name(what, 32); !ok || what == "" || len(as) == maxNodes {
			continue
		}
		as = append(as, device.Attribute{
			Series: "throttle." + what + "_active", File: root.Attr(p + "/cur_state"), Scale: 1,
		})
	}
	return as
}

// Read implements [device.Sensor].
func (t *Throttle) Read(dst []device.Reading) []device.Reading {
	as := t.Attributes()
	if len(as) == 0 {
		return dst
	}
	active, worst := 0, schema.QualityGood
	for i := range as {
		v, q := as[i].File.Int()
		if v > 0 {
			v = 1 // the state is a depth, of which the boards tell 0 and 1
			active++
		}
		worst = max(worst, q)
		dst = device.Append(dst, as[i].Series, float64(v), q)
	}
	if active > 0 {
		worst = schema.QualityGood // one is enough to know
	}
	return device.Append(dst, "throttle.active_count", float64(active), worst)
}

// Overcurrent tells how often the supply's three over-current detectors fire, per
// second since the last read: throttle.oc1_events_per_second (under-voltage), oc2
// (average over-current), oc3 (peaks). Under load oc3 counts all the time; only
// the rate says something.
type Overcurrent struct {
	*device.Folder
	last map[string]int64
	at   time.Time
}

// NewOvercurrent reads the chip whose driver is soctherm_oc. Each counter is a call
// into the boot processor, so it is a sensor of its own.
func NewOvercurrent(root device.Root) *Overcurrent {
	return &Overcurrent{Folder: device.NewFolder("overcurrent", root, lookOvercurrent), last: map[string]int64{}}
}

func lookOvercurrent(root device.Root) []device.Attribute {
	var as []device.Attribute
	for _, p := range hwmonOf(root, "soctherm_oc") {
		for _, n := range [...]string{"oc1", "oc2", "oc3"} {
			if f := p + "/" + n + "_event_cnt"; root.Exists(f) {
				as = append(as, device.Attribute{
					Series: "throttle." + n + "_events_per_second", File: root.Attr(f), Scale: 1,
				})
			}
		}
	}
	return as[:min(len(as), 3)] // there is one such chip
}

// Read implements [device.Sensor].
func (o *Overcurrent) Read(dst []device.Reading) []device.Reading {
	as := o.Attributes()
	now := time.Now()
	secs := now.Sub(o.at).Seconds()
	o.at = now
	for i := range as {
		v, q := as[i].File.Int()
		if q != schema.QualityGood {
			dst = device.Append(dst, as[i].Series, 0, q)
			delete(o.last, as[i].Series)
			continue
		}
		last, had := o.last[as[i].Series]
		o.last[as[i].Series] = v
		if !had {
			continue
		}
		if v < last || secs <= 0 {
			q = schema.QualityStale // the driver was loaded anew
		}
		dst = device.Append(dst, as[i].Series, float64(v-last)/secs, q)
	}
	return dst
}

// Fan tells fan.pwm_percent, what is asked of the fan, and fan.speed_rpm, what it
// does.
type Fan struct{ *device.Folder }

// NewFan reads the chips pwmfan and the tachometer.
func NewFan(root device.Root) *Fan {
	return &Fan{device.NewFolder("fan", root, lookFan)}
}

func lookFan(root device.Root) []device.Attribute {
	var as []device.Attribute
	add := func(series, p string, scale float64) bool {
		if !root.Exists(p) {
			return false
		}
		as = append(as, device.Attribute{Series: series, File: root.Attr(p), Scale: scale})
		return true
	}
	for _, p := range hwmonOf(root, "pwmfan") {
		if add("fan.pwm_percent", p+"/pwm1", 100.0/255) {
			break
		}
	}
	for _, p := range hwmonOf(root, "") { // its driver has several names; the file has one
		if add("fan.speed_rpm", p+"/rpm", 1) {
			break
		}
	}
	return as
}

// hwmonOf gives the folders of the hwmon chips with the driver's name, "" any.
func hwmonOf(root device.Root, driver string) []string {
	const dir = "sys/class/hwmon"
	names, _ := root.List(dir)
	var ps []string
	for n := range device.Numbered(names, "hwmon") {
		p := root.Real(dir + "/" + n)
		if len(ps) < maxNodes && (driver == "" || root.Text(p+"/name") == driver) {
			ps = append(ps, p)
		}
	}
	return ps
}
