// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"bytes"

	"fulmar/device"
	"fulmar/schema"
)

// meminfo is what is used of /proc/meminfo, in kB; -1 where the line is missing.
type meminfo struct {
	total, available, swapTotal, swapFree, nvmap int64
}

// Memory tells memory.total_bytes, available, used_percent, swap_used_bytes and on
// Jetsons nvmap_used_bytes, what GPU and engines hold of the one memory.
type Memory struct{ one }

// NewMemory reads /proc/meminfo.
func NewMemory(root device.Root) *Memory {
	return &Memory{newOne(root, "memory", "proc/meminfo")}
}

// Read implements [device.Sensor].
func (m *Memory) Read(dst []device.Reading) []device.Reading {
	if b := m.read(); b != nil {
		dst = m.take(dst, b)
	}
	return dst
}

// take appends what the file's text tells.
func (m *Memory) take(dst []device.Reading, b []byte) []device.Reading {
	i := parseMeminfo(b)
	kib := func(series string, v int64) {
		if v >= 0 {
			dst = device.Append(dst, series, float64(v)*1024, schema.QualityGood)
		}
	}
	kib("memory.total_bytes", i.total)
	kib("memory.available_bytes", i.available)
	if i.total > 0 && i.available >= 0 {
		used := 100 * (1 - min(float64(i.available)/float64(i.total), 1)) // nonsense is not a negative share
		dst = device.Append(dst, "memory.used_percent", used, schema.QualityGood)
	}
	if i.swapTotal >= 0 && i.swapFree >= 0 {
		kib("memory.swap_used_bytes", max(i.swapTotal-i.swapFree, 0))
	}
	kib("memory.nvmap_used_bytes", i.nvmap)
	return dst
}

func parseMeminfo(b []byte) meminfo {
	m := meminfo{-1, -1, -1, -1, -1}
	for len(b) > 0 {
		var line []byte
		line, b = device.NextLine(b)
		i := bytes.IndexByte(line, ':')
		if i < 0 {
			continue
		}
		v, _, ok := device.NextInt(line[i+1:])
		if !ok || v < 0 {
			continue
		}
		switch string(line[:i]) { // the compiler makes no string of it
		case "MemTotal":
			m.total = v
		case "MemAvailable":
			m.available = v
		case "SwapTotal":
			m.swapTotal = v
		case "SwapFree":
			m.swapFree = v
		case "NvMapMemUsed":
			m.nvmap = v
		}
	}
	return m
}
