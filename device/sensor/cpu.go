// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"bytes"
	"strconv"

	"fulmar/device"
	"fulmar/schema"
)

// maxCores bounds the cores told apart; the largest Jetson has 14.
const maxCores = 256

// The columns of a cpu line of /proc/stat that are used.
const (
	colUser = iota
	colNice
	colSystem
	colIdle
	colIowait
	colIRQ
	colSoftIRQ
	colSteal
	numCols
)

// times are the columns of one cpu line, in clock ticks since boot.
type times [numCols]int64

// CPU tells how busy the processors are: cpu.load_percent (all but idle and
// iowait), its parts, the number of cores that are online, and the load of each
// core where asked for. Cores go on and off line with the power mode.
type CPU struct {
	one
	perCore bool
	total   core
	cores   []core // by number
	round   uint32
}

type core struct {
	series string
	last   times
	have   bool
	round  uint32 // when last seen
}

// NewCPU reads /proc/stat.
func NewCPU(root device.Root, perCore bool) *CPU {
	return &CPU{one: newOne(root, "cpu", "proc/stat"), perCore: perCore}
}

// Read implements [device.Sensor].
func (c *CPU) Read(dst []device.Reading) []device.Reading {
	if b := c.read(); b != nil {
		dst = c.take(dst, b)
	}
	return dst
}

// take appends what the file's text tells.
func (c *CPU) take(dst []device.Reading, b []byte) []device.Reading {
	c.round++
	online := 0
	for len(b) > 0 {
		var line []byte
		line, b = device.NextLine(b)
		n, t, ok := parseCPULine(line)
		if !ok {
			break // the cpu lines come first
		}
		if n < 0 {
			dst = c.whole(dst, t)
			continue
		}
		online++
		if c.perCore && n < maxCores {
			dst = c.core(dst, n, t)
		}
	}
	return device.Append(dst, "cpu.online_count", float64(online), schema.QualityGood)
}

func (c *CPU) whole(dst []device.Reading, t times) []device.Reading {
	last, had := c.total.last, c.total.have
	c.total.last, c.total.have = t, true
	if !had {
		return dst
	}
	d, sum := delta(t, last)
	q := schema.QualityGood
	if sum <= 0 {
		q, sum = schema.QualityStale, 1 // read again within one clock tick
	}
	pct := func(ticks int64) float64 { return 100 * float64(ticks) / float64(sum) }
	dst = device.Append(dst, "cpu.load_percent", pct(sum-d[colIdle]-d[colIowait]), q)
	dst = device.Append(dst, "cpu.user_percent", pct(d[colUser]+d[colNice]), q)
	dst = device.Append(dst, "cpu.system_percent", pct(d[colSystem]), q)
	dst = device.Append(dst, "cpu.irq_percent", pct(d[colIRQ]+d[colSoftIRQ]), q)
	dst = device.Append(dst, "cpu.iowait_percent", pct(d[colIowait]), q)
	return device.Append(dst, "cpu.steal_percent", pct(d[colSteal]), q)
}

func (c *CPU) core(dst []device.Reading, n int, t times) []device.Reading {
	for len(c.cores) <= n {
		c.cores = append(c.cores, core{series: "cpu.core" + strconv.Itoa(len(c.cores)) + "_load_percent"})
	}
	k := &c.cores[n]
	// A core that was off line meanwhile has no "since the last read".
	had := k.have && k.round == c.round-1
	last := k.last
	k.last, k.have, k.round = t, true, c.round
	if !had {
		return dst
	}
	d, sum := delta(t, last)
	if sum <= 0 {
		return device.Append(dst, k.series, 0, schema.QualityStale)
	}
	return device.Append(dst, k.series, 100*float64(sum-d[colIdle]-d[colIowait])/float64(sum), schema.QualityGood)
}

// delta subtracts column by column. iowait is known to run backwards; what does
// counts as nothing.
func delta(t, last times) (d times, sum int64) {
	for i := range t {
		d[i] = max(t[i]-last[i], 0)
		sum += d[i]
	}
	return d, sum
}

// parseCPULine reads "cpu  1 2 3..." (n = -1) or "cpu7 1 2 3...".
func parseCPULine(line []byte) (n int, t times, ok bool) {
	head, rest := device.NextField(line)
	num, ok := bytes.CutPrefix(head, []byte("cpu"))
	if !ok {
		return 0, t, false
	}
	n = -1
	if len(num) > 0 {
		v, ok := device.ParseInt(num)
		if !ok || v < 0 || v > 1<<16 {
			return 0, t, false
		}
		n = int(v)
	}
	for i := range t {
		if t[i], rest, ok = device.NextInt(rest); !ok || t[i] < 0 {
			return 0, t, false
		}
	}
	return n, t, true
}

// CPUFreq tells the clock of each cluster of cores: cpufreq.policy0_hertz.
type CPUFreq struct{ *device.Folder }

// NewCPUFreq reads /sys/devices/system/cpu/cpufreq.
func NewCPUFreq(root device.Root) *CPUFreq {
	return &CPUFreq{device.NewFolder("cpufreq", root, lookCPUFreq)}
}

func lookCPUFreq(root device.Root) []device.Attribute {
	const dir = "sys/devices/system/cpu/cpufreq"
	names, _ := root.List(dir) // none: no such driver here
	var as []device.Attribute
	for n := range device.Numbered(names, "policy") {
		if p := dir + "/" + n + "/scaling_cur_freq"; len(as) < maxCores && root.Exists(p) {
			as = append(as, device.Attribute{Series: "cpufreq." + n + "_hertz", File: root.Attr(p), Scale: 1000})
		}
	}
	return as
}
