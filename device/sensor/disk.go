// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"fulmar/device"
	"fulmar/schema"
)

const (
	maxDisks   = 16  // block devices told apart
	maxLines   = 256 // lines of one table remembered, the ignored ones included
	sectorSize = 512 // bytes, of /proc/diskstats whatever the disk's own is
)

// disk is one line of /proc/diskstats.
type disk struct {
	name               string
	skip               bool
	read, write, busy  string // series
	rRate, wRate, bRte rate
}

// Disk tells for each whole disk how much is read and written and how long it was
// busy: disk.nvme0n1.read_bytes_per_second and so on.
type Disk struct {
	one
	root  device.Root
	lap   lap
	disks []disk
	count int
}

// NewDisk reads /proc/diskstats.
func NewDisk(root device.Root) *Disk {
	return &Disk{one: newOne(root, "disk", "proc/diskstats"), root: root}
}

// Read implements [device.Sensor].
func (d *Disk) Read(dst []device.Reading) []device.Reading {
	if b := d.read(); b != nil {
		dst = d.take(dst, b)
	}
	return dst
}

// take appends what the file's text tells.
func (d *Disk) take(dst []device.Reading, b []byte) []device.Reading {
	secs := d.lap.seconds()
	for len(b) > 0 {
		var line []byte
		line, b = device.NextLine(b)
		name, io, ok := parseDiskLine(line)
		if !ok {
			continue
		}
		k := d.disk(name)
		if k == nil || k.skip {
			continue
		}
		if v, q, ok := k.rRate.per(io.sectorsRead, secs); ok {
			dst = device.Append(dst, k.read, v*sectorSize, q)
		}
		if v, q, ok := k.wRate.per(io.sectorsWritten, secs); ok {
			dst = device.Append(dst, k.write, v*sectorSize, q)
		}
		if v, q, ok := k.bRte.per(io.busyMs, secs); ok {
			dst = device.Append(dst, k.busy, min(v/10, 100), q) // ms per s are per mille
		}
	}
	return dst
}

// disk finds the entry of a name and makes one for a new name; nil when there are
// too many.
func (d *Disk) disk(name []byte) *disk {
	for i := range d.disks {
		if d.disks[i].name == string(name) {
			return &d.disks[i]
		}
	}
	if len(d.disks) >= maxLines {
		return nil
	}
	k := disk{name: string(name)}
	k.skip = d.count >= maxDisks || !wholeDisk(d.root, k.name)
	if !k.skip {
		d.count++
		p := "disk." + device.Name(k.name, 24)
		k.read, k.write, k.busy = p+".read_bytes_per_second", p+".write_bytes_per_second", p+".busy_percent"
	}
	d.disks = append(d.disks, k)
	return &d.disks[len(d.disks)-1]
}

// wholeDisk tells a disk from partitions and from what is no disk.
func wholeDisk(root device.Root, name string) bool {
	for _, p := range []string{"loop", "ram", "zram", "dm-", "sr", "fd", "mtdblock", "nbd"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	if strings.Contains(name, "boot") || strings.Contains(name, "rpmb") { // of an eMMC
		return false
	}
	// The kernel writes '!' for '/' in folder names (cciss!c0d0).
	return root.Exists("sys/block/" + strings.ReplaceAll(name, "/", "!"))
}

type diskIO struct{ sectorsRead, sectorsWritten, busyMs int64 }

// parseDiskLine reads major, minor, name and the counters: reads, merged,
// sectors, ms, writes, merged, sectors, ms, in flight, ms busy.
func parseDiskLine(line []byte) (name []byte, io diskIO, ok bool) {
	name, rest := device.NextField(device.SkipFields(line, 2))
	if len(name) == 0 || len(name) > schema.MaxName {
		return nil, io, false
	}
	var v [10]int64
	for i := range v {
		if v[i], rest, ok = device.NextInt(rest); !ok || v[i] < 0 {
			return nil, io, false
		}
	}
	return name, diskIO{v[2], v[6], v[9]}, true
}

// Mounts tells how full file systems are: mount.root.used_percent and
// mount.root.free_bytes (what an ordinary user may still write). It has its own
// sensor because statfs of a dead network share hangs.
type Mounts struct {
	root   device.Root
	mounts []mount
	found  atomic.Int32
}

type mount struct{ path, used, free string }

// NewMounts looks at the given mount points.
func NewMounts(root device.Root, paths []string) *Mounts {
	m := &Mounts{root: root}
	for _, p := range paths[:min(len(paths), MaxMounts)] {
		name := device.Name(p, 40)
		if name == "" {
			name = "root"
		}
		m.mounts = append(m.mounts, mount{p, "mount." + name + ".used_percent", "mount." + name + ".free_bytes"})
	}
	return m
}

// Name names the sensor.
func (m *Mounts) Name() string { return "mounts" }

// Found tells how many of the mount points are there.
func (m *Mounts) Found() int { return int(m.found.Load()) }

// Read implements [device.Sensor].
func (m *Mounts) Read(dst []device.Reading) []device.Reading {
	n := int32(0)
	for i := range m.mounts {
		k := &m.mounts[i]
		used, free, q := statfs(m.root.Path(k.path))
		if q == schema.QualityGood {
			n++
		}
		dst = device.Append(dst, k.used, used, q)
		dst = device.Append(dst, k.free, free, q)
	}
	m.found.Store(n)
	return dst
}

func statfs(path string) (usedPercent, free float64, q schema.Quality) {
	var st unix.Statfs_t
	switch err := unix.Statfs(path, &st); {
	case err == unix.ENOENT:
		return 0, 0, schema.QualityOffline
	case err != nil, st.Blocks == 0:
		return 0, 0, schema.QualityError
	}
	// As df counts: what is reserved for root is neither used nor free.
	used := st.Blocks - st.Bfree
	return 100 * float64(used) / float64(used+st.Bavail), float64(st.Bavail) * float64(st.Bsize), schema.QualityGood
}
