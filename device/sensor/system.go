// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"bytes"
	"sync/atomic"

	"fulmar/device"
	"fulmar/schema"
)

const (
	clockTick = 100 // per second: USER_HZ of the kernel's interface on all its platforms here
)

// Load tells load.1m, load.5m and load.15m (tasks that run or wait, no unit) and
// load.running_count.
type Load struct{ one }

// NewLoad reads /proc/loadavg.
func NewLoad(root device.Root) *Load { return &Load{newOne(root, "load", "proc/loadavg")} }

// Read implements [device.Sensor].
func (l *Load) Read(dst []device.Reading) []device.Reading {
	if b := l.read(); b != nil {
		dst = l.take(dst, b)
	}
	return dst
}

// take appends what the file's text tells.
func (l *Load) take(dst []device.Reading, b []byte) []device.Reading {
	avg, running, ok := parseLoadavg(b)
	q := schema.QualityGood
	if !ok {
		q = schema.QualityError
	}
	dst = device.Append(dst, "load.1m", avg[0], q)
	dst = device.Append(dst, "load.5m", avg[1], q)
	dst = device.Append(dst, "load.15m", avg[2], q)
	return device.Append(dst, "load.running_count", float64(running), q)
}

// parseLoadavg reads "0.00 0.14 0.26 2/95 13826".
func parseLoadavg(b []byte) (avg [3]float64, running int64, ok bool) {
	var f []byte
	for i := range avg {
		f, b = device.NextField(b)
		if avg[i], ok = device.ParseDec(f); !ok {
			return avg, 0, false
		}
	}
	f, _ = device.NextField(b)
	i := bytes.IndexByte(f, '/')
	if i < 0 {
		return avg, 0, false
	}
	running, ok = device.ParseInt(f[:i])
	return avg, running, ok
}

// Uptime tells host.uptime_seconds.
type Uptime struct{ one }

// NewUptime reads /proc/uptime.
func NewUptime(root device.Root) *Uptime { return &Uptime{newOne(root, "uptime", "proc/uptime")} }

// Read implements [device.Sensor].
func (u *Uptime) Read(dst []device.Reading) []device.Reading {
	if b := u.read(); b != nil {
		dst = u.take(dst, b)
	}
	return dst
}

// take appends what the file's text tells.
func (u *Uptime) take(dst []device.Reading, b []byte) []device.Reading {
	f, _ := device.NextField(b)
	v, ok := device.ParseDec(f)
	q := schema.QualityGood
	if !ok {
		q = schema.QualityError
	}
	return device.Append(dst, "host.uptime_seconds", v, q)
}

// Process tells what fulmard itself uses: process.cpu_percent (of one core),
// process.threads_count, process.rss_bytes, and process.rss_anon_bytes, the part
// of it that is not just the program's own file.
type Process struct {
	one
	status *device.File
	lap    lap
	ticks  rate
}

// NewProcess reads /proc/self/stat and /proc/self/status.
func NewProcess(root device.Root) *Process {
	return &Process{one: newOne(root, "process", "proc/self/stat"), status: root.File("proc/self/status")}
}

// Close gives the files back.
func (p *Process) Close() error {
	p.status.Close()
	return p.one.Close()
}

// Read implements [device.Sensor].
func (p *Process) Read(dst []device.Reading) []device.Reading {
	if b := p.read(); b != nil {
		dst = p.take(dst, b)
	}
	if b, q := p.status.Read(); q == schema.QualityGood {
		dst = takeStatus(dst, b)
	}
	return dst
}

// take appends what /proc/self/stat tells.
func (p *Process) take(dst []device.Reading, b []byte) []device.Reading {
	cpu, threads, ok := parseSelfStat(b)
	secs := p.lap.seconds()
	if !ok {
		return dst
	}
	if v, q, have := p.ticks.per(cpu, secs); have {
		dst = device.Append(dst, "process.cpu_percent", v*100/clockTick, q)
	}
	return device.Append(dst, "process.threads_count", float64(threads), schema.QualityGood)
}

// takeStatus appends what /proc/self/status tells.
func takeStatus(dst []device.Reading, b []byte) []device.Reading {
	rss, anon := parseSelfStatus(b)
	if rss >= 0 {
		dst = device.Append(dst, "process.rss_bytes", float64(rss)*1024, schema.QualityGood)
	}
	if anon >= 0 {
		dst = device.Append(dst, "process.rss_anon_bytes", float64(anon)*1024, schema.QualityGood)
	}
	return dst
}

// parseSelfStat gives utime + stime in clock ticks and the number of threads. The
// program's name stands in parentheses and may hold blanks and parentheses.
func parseSelfStat(b []byte) (ticks, threads int64, ok bool) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, 0, false
	}
	b = device.SkipFields(b[i+1:], 11) // state is field 3, utime field 14
	utime, b, ok1 := device.NextInt(b)
	stime, b, ok2 := device.NextInt(b)
	threads, _, ok3 := device.NextInt(device.SkipFields(b, 4))
	return utime + stime, threads, ok1 && ok2 && ok3 && utime >= 0 && stime >= 0
}

// parseSelfStatus gives VmRSS and RssAnon in kB, -1 where missing.
func parseSelfStatus(b []byte) (rss, anon int64) {
	rss, anon = -1, -1
	for len(b) > 0 {
		var line []byte
		line, b = device.NextLine(b)
		i := bytes.IndexByte(line, ':')
		if i < 0 {
			continue
		}
		switch string(line[:i]) {
		case "VmRSS":
			rss = kilobytes(line[i+1:])
		case "RssAnon":
			anon = kilobytes(line[i+1:])
		}
	}
	return rss, anon
}

func kilobytes(b []byte) int64 {
	if v, _, ok := device.NextInt(b); ok && v >= 0 {
		return v
	}
	return -1
}

// Pressure tells the share of time in which tasks waited for processor, memory or
// disk, averaged by the kernel over 10 s: pressure.cpu_some_percent,
// memory_some, memory_full, io_some and io_full. Absent before Linux 4.20 and where the kernel
// was built or booted without it.
type Pressure struct {
	files [3]pressureFile
	found atomic.Int32
}

type pressureFile struct {
	file       *device.File
	some, full string // series, "" not told
}

// NewPressure reads /proc/pressure.
func NewPressure(root device.Root) *Pressure {
	return &Pressure{files: [3]pressureFile{
		{root.File("proc/pressure/cpu"), "pressure.cpu_some_percent", ""}, // "full" has no meaning for processors
		{root.File("proc/pressure/memory"), "pressure.memory_some_percent", "pressure.memory_full_percent"},
		{root.File("proc/pressure/io"), "pressure.io_some_percent", "pressure.io_full_percent"},
	}}
}

// Name names the sensor.
func (p *Pressure) Name() string { return "pressure" }

// Found tells how many of the three files can be read.
func (p *Pressure) Found() int { return int(p.found.Load()) }

// Close gives the files back.
func (p *Pressure) Close() error {
	for i := range p.files {
		p.files[i].file.Close()
	}
	return nil
}

// Read implements [device.Sensor].
func (p *Pressure) Read(dst []device.Reading) []device.Reading {
	found := int32(0)
	for i := range p.files {
		f := &p.files[i]
		b, q := f.file.Read()
		if q != schema.QualityGood {
			continue // not built in, or EOPNOTSUPP: psi=0
		}
		found++
		dst = f.take(dst, b)
	}
	p.found.Store(found)
	return dst
}

// take appends what the file's text tells.
func (f *pressureFile) take(dst []device.Reading, b []byte) []device.Reading {
	for len(b) > 0 {
		var line []byte
		line, b = device.NextLine(b)
		some, avg, ok := parsePressure(line)
		series := f.full
		if some {
			series = f.some
		}
		if ok && series != "" {
			dst = device.Append(dst, series, avg, schema.QualityGood)
		}
	}
	return dst
}

// parsePressure reads "some avg10=0.00 avg60=...": the kind and avg10.
func parsePressure(line []byte) (some bool, avg10 float64, ok bool) {
	kind, rest := device.NextField(line)
	f, _ := device.NextField(rest)
	num, found := bytes.CutPrefix(f, []byte("avg10="))
	some = string(kind) == "some"
	if !found || (!some && string(kind) != "full") {
		return false, 0, false
	}
	avg10, ok = device.ParseDec(num)
	return some, avg10, ok && avg10 >= 0
}
