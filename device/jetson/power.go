// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package jetson

import (
	"strconv"
	"strings"
	"sync/atomic"

	"fulmar/device"
	"fulmar/schema"
)

const (
	maxRails    = 16 // a TX2 has 9
	numChannels = 3  // of an INA3221; in4 to in7 are shunts and their sum
)

// Power tells the power rails measured by INA3221 chips: power.vdd_in_watts,
// power.vdd_in_volts, power.vdd_in_amperes for each rail, and power.total_watts
// where the board has a rail that all others hang on. Where it has none (AGX Orin)
// the sum of the rails is told as power.sum_watts: that is less than what the wall
// gives. Idle rails may tell small negative powers; they are passed on.
type Power struct {
	root  device.Root
	probe device.Probe
	rails []rail
	total int // index of the rail that holds all, -1 none
	found atomic.Int32
}

type rail struct {
	label                string
	volts, amperes, watt string       // series
	mV, mA               *device.File // of the modern driver
}

// NewPower reads the chips of the driver ina3221, wherever they sit.
func NewPower(root device.Root) *Power { return &Power{root: root, total: -1} }

// Name names the sensor.
func (p *Power) Name() string { return "power" }

// Found tells how many rails there are.
func (p *Power) Found() int { return int(p.found.Load()) }

// Close gives all files back.
func (p *Power) Close() error {
	for i := range p.rails {
		p.rails[i].mV.Close()
		p.rails[i].mA.Close()
	}
	return nil
}

// Read implements [device.Sensor]. One register costs half a millisecond on the
// bus, so this takes some ms.
func (p *Power) Read(dst []device.Reading) []device.Reading {
	if p.probe.Due() {
		p.look()
	}
	sum, worst := 0.0, schema.QualityGood
	for i := range p.rails {
		r := &p.rails[i]
		mV, qV := r.mV.Int()
		mA, qA := r.mA.Int()
		w, q := float64(mV)*float64(mA)/1e6, max(qV, qA)
		dst = device.Append(dst, r.volts, float64(mV)/1e3, qV)
		dst = device.Append(dst, r.amperes, float64(mA)/1e3, qA)
		dst = device.Append(dst, r.watt, w, q)
		if p.total == i {
			dst = device.Append(dst, "power.total_watts", w, q)
		}
		sum += w
		worst = max(worst, q)
	}
	if p.total < 0 && len(p.rails) > 0 {
		dst = device.Append(dst, "power.sum_watts", sum, worst)
	}
	return dst
}

// look finds the rails. Chips are known by bus and address, which stay the same.
func (p *Power) look() {
	const dir = "sys/bus/i2c/drivers/ina3221"
	chips, _ := p.root.List(dir) // none: no such chip, or an older driver
	var fresh []rail
	used := map[string]bool{}
	for _, c := range chips[:min(len(chips), maxNodes)] {
		if !strings.Contains(c, "-00") { // "1-0040"; bind, unbind, module stand here too
			continue
		}
		hw, _ := p.root.List(dir + "/" + c + "/hwmon")
		for n := range device.Numbered(hw, "hwmon") {
			at := dir + "/" + c + "/hwmon/" + n
			for ch := 1; ch <= numChannels && len(fresh) < maxRails; ch++ {
				if r, ok := p.channel(at, ch, c, used); ok {
					fresh = append(fresh, r)
				}
			}
		}
	}
	p.adopt(fresh)
}

func (p *Power) channel(at string, ch int, chip string, used map[string]bool) (rail, bool) {
	k := strconv.Itoa(ch)
	label := device.Name(p.root.Text(at+"/in"+k+"_label"), 32)
	if label == "" || label == "nc" || strings.HasPrefix(label, "sum_of") {
		return rail{}, false // not connected
	}
	if used[label] { // two chips with one name for two rails
		label += "_" + device.Name(chip, 8)
	}
	used[label] = true
	n := "power." + label
	return rail{
		label: label, volts: n + "_volts", amperes: n + "_amperes", watt: n + "_watts",
		mV: p.root.Attr(at + "/in" + k + "_input"), mA: p.root.Attr(at + "/curr" + k + "_input"),
	}, true
}

func (p *Power) adopt(fresh []rail) {
	var old, now []device.Attribute
	for _, r := range p.rails {
		old = append(old, device.Attribute{Series: r.volts, File: r.mV}, device.Attribute{Series: r.amperes, File: r.mA})
	}
	for _, r := range fresh {
		now = append(now, device.Attribute{Series: r.volts, File: r.mV}, device.Attribute{Series: r.amperes, File: r.mA})
	}
	device.Adopt(old, now)
	for i := range fresh {
		fresh[i].mV, fresh[i].mA = now[2*i].File, now[2*i+1].File
	}
	p.rails, p.total = fresh, totalRail(fresh)
	p.found.Store(int32(len(fresh)))
}

// totalRail finds the rail that the whole module hangs on.
func totalRail(rails []rail) int {
	for _, want := range [...]string{"vdd_in", "pom_5v_in", "vin"} {
		for i := range rails {
			if rails[i].label == want {
				return i
			}
		}
	}
	return -1
}
