// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"fulmar/device"
)

const (
	maxChips  = 32  // hwmon chips looked at
	maxInputs = 128 // inputs of all chips together
)

// Hwmon tells temperatures, fans, voltages, currents and powers of the kernel's
// hwmon chips: hwmon.nvme.nvme0.composite_celsius. A chip is named by its driver
// and the device it sits on, never by hwmonN, which changes between boots.
type Hwmon struct{ *device.Folder }

// NewHwmon reads /sys/class/hwmon but for the drivers in skip.
func NewHwmon(root device.Root, skip []string) *Hwmon {
	skip = slices.Clone(skip)
	return &Hwmon{device.NewFolder("hwmon", root, func(r device.Root) []device.Attribute { return lookHwmon(r, skip) })}
}

// inputKind is a kind of input: prefix of its files, unit and scale to it.
type inputKind struct {
	prefix, file, unit string
	scale              float64
}

// kindOf tells what an attribute such as "temp1_input" is: its kind and its stem.
func kindOf(name string) (k inputKind, stem string, ok bool) {
	for _, k := range [...]inputKind{
		{"temp", "_input", "celsius", 0.001},
		{"fan", "_input", "rpm", 1},
		{"in", "_input", "volts", 0.001},
		{"curr", "_input", "amperes", 0.001},
		{"power", "_input", "watts", 1e-6},
		{"power", "_average", "watts", 1e-6}, // drivers have one of the two
	} {
		num, found := strings.CutPrefix(name, k.prefix)
		num, found2 := strings.CutSuffix(num, k.file)
		if _, err := strconv.ParseUint(num, 10, 8); found && found2 && err == nil {
			return k, k.prefix + num, true
		}
	}
	return inputKind{}, "", false
}

func lookHwmon(root device.Root, skip []string) []device.Attribute {
	const dir = "sys/class/hwmon"
	names, _ := root.List(dir) // none: no chips on this machine
	var as []device.Attribute
	chips, used := 0, map[string]bool{}
	for n := range device.Numbered(names, "hwmon") {
		p := root.Real(dir + "/" + n)
		driver := root.Text(p + "/name")
		if driver == "" || chips == maxChips || slices.Contains(skip, driver) {
			continue
		}
		on, _ := root.Link(p + "/device") // none: a chip without a device
		if strings.HasPrefix(path.Base(on), "thermal_zone") {
			continue // the thermal sensor has it
		}
		chips++
		name := "hwmon." + device.Name(driver, 16)
		if b := device.Name(path.Base(on), 16); on != "" && b != "" {
			name += "." + b
		}
		as = appendInputs(as, root, p, name, used)
	}
	return as
}

func appendInputs(as []device.Attribute, root device.Root, p, chip string, used map[string]bool) []device.Attribute {
	files, _ := root.List(p) // it went away just now
	for _, f := range files {
		k, stem, ok := kindOf(f)
		if !ok || len(as) == maxInputs {
			continue
		}
		l := device.Name(root.Text(p+"/"+stem+"_label"), 18) // most have none
		switch {
		case l == "nc" || strings.HasPrefix(l, "sum_of"):
			continue // a pin that is not connected; a sum of shunt voltages
		case l == "":
			l = stem
		}
		series := chip + "." + l + "_" + k.unit
		if used[series] {
			series = chip + "." + stem + "_" + k.unit
		}
		if used[series] {
			continue // one driver with two chips on one device: the first stands
		}
		used[series] = true
		as = append(as, device.Attribute{Series: series, File: root.Attr(p + "/" + f), Scale: k.scale})
	}
	return as
}
