// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"strconv"
	"strings"

	"fulmar/device"
	"fulmar/schema"
)

const (
	// maxZones bounds the thermal zones; an AGX Orin has 11.
	maxZones = 64
	// pmicConstant is what PMIC-Die tells on every Jetson that has it, whatever the
	// temperature, in milli-°C.
	pmicConstant = 100000
	pmicSeries   = "thermal.pmic_celsius"
)

// Thermal tells the temperature of each thermal zone: thermal.cpu_celsius. A zone
// that is powered down (on an Orin the cv zones nearly always, the GPU's while it
// is gated) is offline, never a number.
type Thermal struct{ *device.Folder }

// NewThermal reads /sys/class/thermal.
func NewThermal(root device.Root) *Thermal {
	return &Thermal{device.NewFolder("thermal", root, lookThermal)}
}

// Read implements [device.Sensor].
func (t *Thermal) Read(dst []device.Reading) []device.Reading {
	as := t.Attributes()
	for i := range as {
		v, q := as[i].File.Int()
		if v == pmicConstant && as[i].Series == pmicSeries {
			continue
		}
		c := float64(v) * as[i].Scale
		dst = device.Append(dst, as[i].Series, c, bad(c, q))
	}
	return dst
}

func lookThermal(root device.Root) []device.Attribute {
	const dir = "sys/class/thermal"
	names, _ := root.List(dir) // none: no zones on this machine
	var as []device.Attribute
	used := map[string]int{}
	for n := range device.Numbered(names, "thermal_zone") {
		p := root.Real(dir + "/" + n)
		if len(as) == maxZones || !root.Exists(p+"/type") {
			continue
		}
		name := zoneName(root.Text(p + "/type"))
		if name == "" {
			name = strings.TrimPrefix(n, "thermal_")
		}
		// A second zone of one type (two wireless cards) gets a number.
		if used[name]++; used[name] > 1 {
			name += "_" + strconv.Itoa(used[name])
		}
		as = append(as, device.Attribute{
			Series: "thermal." + name + "_celsius", File: root.Attr(p + "/temp"), Scale: 0.001,
		})
	}
	return as
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
