// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"strconv"
	"strings"
	"sync/atomic"

	"fulmar/device"
	"fulmar/schema"
)

const (
	// maxZones bounds the thermal zones; an AGX Orin has 11.
	maxZones = 64
	// pmicConstant is what PMIC-Die tells on every Jetson that has it, whatever the
	// temperature, in milli-°C.
	pmicConstant = 100000
)

// Thermal tells the temperature of each thermal zone: thermal.cpu_celsius. A zone
// that is powered down (on an Orin the cv zones nearly always, the GPU's while it
// is gated) is offline, never a number.
type Thermal struct {
	root  device.Root
	probe probe
	zones []zone
	found atomic.Int32
}

type zone struct {
	attr
	pmic bool
}

// NewThermal reads /sys/class/thermal.
func NewThermal(root device.Root) *Thermal { return &Thermal{root: root} }

// Name names the sensor.
func (t *Thermal) Name() string { return "thermal" }

// Found tells how many zones there are.
func (t *Thermal) Found() int { return int(t.found.Load()) }

// Close gives all files back.
func (t *Thermal) Close() error {
	for i := range t.zones {
		t.zones[i].file.Close()
	}
	return nil
}

// Read implements [device.Sensor].
func (t *Thermal) Read(dst []device.Reading) []device.Reading {
	if t.probe.due() {
		t.look()
	}
	for i := range t.zones {
		z := &t.zones[i]
		v, q := z.file.Int()
		if z.pmic && v == pmicConstant {
			continue
		}
		c := float64(v) * z.scale
		dst = device.Append(dst, z.series, c, bad(c, q))
	}
	return dst
}

func (t *Thermal) look() {
	const dir = "sys/class/thermal"
	names, _ := t.root.List(dir) // none: no zones on this machine
	var fresh []zone
	used := map[string]int{}
	for n := range numbered(names, "thermal_zone") {
		typ, err := t.root.ReadOnce(dir+"/"+n+"/type", 64)
		if err != nil || len(fresh) == maxZones {
			continue
		}
		name := zoneName(string(device.TrimSpace(typ)))
		if name == "" {
			name = strings.TrimPrefix(n, "thermal_")
		}
		// A second zone of one type (two wireless cards) gets a number.
		if used[name]++; used[name] > 1 {
			name += "_" + strconv.Itoa(used[name])
		}
		fresh = append(fresh, zone{
			attr: attr{"thermal." + name + "_celsius", t.root.Attr(dir + "/" + n + "/temp"), 0.001},
			pmic: name == "pmic",
		})
	}
	old, now := make([]attr, len(t.zones)), make([]attr, len(fresh))
	for i := range t.zones {
		old[i] = t.zones[i].attr
	}
	for i := range fresh {
		now[i] = fresh[i].attr
	}
	adopt(old, now)
	for i := range fresh {
		fresh[i].attr = now[i]
	}
	t.zones = fresh
	t.found.Store(int32(len(fresh)))
}

// zoneName makes one name of the spellings of the JetPack releases: lower case,
// cut at the first '-' or '_': "CPU-therm" and "cpu-thermal" are cpu,
// "Tboard_tegra" is tboard. Two types would lose their meaning by that.
func zoneName(typ string) string {
	switch typ {
	case "thermal-fan-est":
		return "fan_est"
	case "x86_pkg_temp":
		return "cpu_package"
	}
	if i := strings.IndexAny(typ, "-_"); i > 0 {
		typ = typ[:i]
	}
	return device.Name(typ, 32)
}

// bad marks what a driver says when it has nothing: no such temperature exists.
func bad(v float64, q schema.Quality) schema.Quality {
	if q == schema.QualityGood && (v < -273 || v > 1000) {
		return schema.QualityError
	}
	return q
}
