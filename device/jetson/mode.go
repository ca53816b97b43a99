// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package jetson

import (
	"strconv"
	"strings"

	"fulmar/device"
	"fulmar/schema"
)

const (
	statusFile = "var/lib/nvpmodel/status"
	modesFile  = "etc/nvpmodel.conf"
	maxModes   = 32        // of one board; the Orin family has up to 5
	maxConf    = 256 << 10 // bytes of nvpmodel.conf; that of the AGX Orin has 20 KiB
)

// Modes are the power modes of /etc/nvpmodel.conf. Their numbers are not in order
// of speed.
type Modes struct {
	Names   map[int]string // by number
	Default int            // -1 unknown
}

// ParseModes reads nvpmodel.conf: lines "< POWER_MODEL ID=2 NAME=MAXN >" and
// "< PM_CONFIG DEFAULT=2 >". Everything else in it is passed over.
func ParseModes(conf string) Modes {
	m := Modes{Names: map[int]string{}, Default: -1}
	for line := range strings.Lines(conf) {
		f := strings.Fields(strings.Trim(strings.TrimSpace(line), "<>"))
		if len(f) < 2 {
			continue
		}
		kv := map[string]string{}
		for _, w := range f[1:min(len(f), 8)] {
			if k, v, ok := strings.Cut(w, "="); ok {
				kv[k] = v
			}
		}
		switch f[0] {
		case "POWER_MODEL":
			if id, err := strconv.ParseUint(kv["ID"], 10, 8); err == nil && kv["NAME"] != "" && len(m.Names) < maxModes {
				m.Names[int(id)] = kv["NAME"]
			}
		case "PM_CONFIG":
			if id, err := strconv.ParseUint(kv["DEFAULT"], 10, 8); err == nil {
				m.Default = int(id)
			}
		}
	}
	return m
}

// parseStatus reads "pmode:0002" and perhaps more fields; -1 where it is none.
func parseStatus(b []byte) int {
	f, _ := device.NextField(b)
	v, ok := strings.CutPrefix(string(f), "pmode:")
	id, err := strconv.ParseUint(v, 10, 8)
	if !ok || err != nil {
		return -1
	}
	return int(id)
}

// PowerMode tells power.mode_id, the number of the nvpmodel mode; [Facts] has its
// name. Before the first change there is no status file and the default holds.
type PowerMode struct {
	*device.Folder
	root device.Root
	def  int
}

// NewPowerMode reads what nvpmodel leaves behind; it needs neither root nor the
// tool.
func NewPowerMode(root device.Root) *PowerMode {
	p := &PowerMode{root: root, def: -1}
	p.Folder = device.NewFolder("power_mode", root, p.look)
	return p
}

func (p *PowerMode) look(root device.Root) []device.Attribute {
	conf, err := root.ReadOnce(modesFile, maxConf)
	if err != nil {
		return nil // no Jetson
	}
	p.def = ParseModes(string(conf)).Default
	return []device.Attribute{{Series: "power.mode_id", File: root.File(statusFile), Scale: 1}}
}

// Read implements [device.Sensor].
func (p *PowerMode) Read(dst []device.Reading) []device.Reading {
	as := p.Attributes()
	for i := range as {
		b, q := as[i].File.Read()
		// nvpmodel writes a new file or the same one: a kept descriptor might be of
		// a file that is gone.
		as[i].File.Close()
		id := p.def
		if q == schema.QualityGood {
			id = parseStatus(b)
		}
		switch {
		case id >= 0:
			q = schema.QualityGood
		case q == schema.QualityGood:
			q = schema.QualityError
		}
		dst = device.Append(dst, as[i].Series, float64(id), q)
	}
	return dst
}

// Facts tells soc ("tegra234"), jetpack ("6.2", from the L4T release) and
// power_mode ("15W"), as far as they are known; nothing on other machines.
func Facts(root device.Root) map[string]string {
	m := map[string]string{}
	if b, err := root.ReadOnce("proc/device-tree/compatible", 512); err == nil {
		if soc := socOf(string(b)); soc != "" {
			m["soc"] = soc
		}
	}
	if b, err := root.ReadOnce("etc/nv_tegra_release", 512); err == nil {
		if jp := jetpackOf(device.ParseL4T(string(b))); jp != "" {
			m["jetpack"] = jp
		}
	}
	if conf, err := root.ReadOnce(modesFile, maxConf); err == nil {
		modes := ParseModes(string(conf))
		id := modes.Default
		if b, err := root.ReadOnce(statusFile, 64); err == nil {
			id = parseStatus(b)
		}
		if name := device.Name(modes.Names[id], 32); name != "" {
			m["power_mode"] = strings.ToUpper(name)
		}
	}
	return m
}

// socOf takes the last of the NUL-separated names in the device tree's compatible
// list: "nvidia,p3768-0000+p3767-0005", "nvidia,tegra234".
func socOf(compatible string) string {
	names := strings.Split(strings.TrimRight(compatible, "\x00\n"), "\x00")
	soc, ok := strings.CutPrefix(names[len(names)-1], "nvidia,")
	if !ok || schema.CheckName(soc) != nil {
		return ""
	}
	return soc
}

// jetpackOf names the JetPack release of an L4T release. JetPack 7.2 runs on Orin
// too, so it says nothing about the board.
func jetpackOf(l4t string) string {
	for _, r := range [...]struct{ l4t, jetpack string }{
		{"32.7.", "4.6"},
		{"34.1", "5.0"},
		{"35.1", "5.0.2"},
		{"35.2.1", "5.1"},
		{"35.3.1", "5.1.1"},
		{"35.4.1", "5.1.2"},
		{"35.5.0", "5.1.3"},
		{"35.6.0", "5.1.4"},
		{"35.6.4", "5.1.6"},
		{"35.6.", "5.1.5"},
		{"36.2", "6.0"},
		{"36.3", "6.0"},
		{"36.4.0", "6.1"},
		{"36.4.3", "6.2"},
		{"36.4.", "6.2.1"},
		{"36.5.", "6.2.2"},
		{"38.2.", "7.0"},
		{"38.4.", "7.1"},
		{"39.", "7.2"},
	} {
		if strings.HasPrefix(l4t, r.l4t) {
			return r.jetpack
		}
	}
	return ""
}
