// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/device"
	"fulmar/device/jetson"
)

const (
	maxText     = 8 << 10
	maxDPKG     = 64 << 20 // bytes of dpkg's status; a JetPack has 6 MB of it
	maxMounts   = 1 << 20
	maxNodes    = 64 // of one kind that are told
	dpkgStatus  = "var/lib/dpkg/status"
	modesFile   = "etc/nvpmodel.conf"
	thermalDir  = "sys/class/thermal"
	throttleEnd = "-throttle-alert"
)

func (m *machine) text(p string) string {
	b, err := m.root.ReadOnce(p, maxText)
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\x00\n ")
}

// board tells what machine this is and which JetPack is on it. The table from L4T to
// JetPack is device/jetson's, from NVIDIA's release notes.
func board(_ context.Context, m *machine) []Line {
	f := device.Facts(m.root)
	jet := jetson.Facts(m.root)
	model := f["model"]
	if model == "" {
		model = "a machine that does not tell its model"
	}
	packages := m.packages("nvidia-jetpack", "nvidia-l4t-core")
	l4t := f["l4t"]
	if l4t == "" {
		l4t, _, _ = strings.Cut(packages["nvidia-l4t-core"], "-") // a container or an image without the file
	}
	os := f["os"]
	if os == "" {
		os = "an unknown system"
	}
	if l4t == "" {
		if jet["soc"] != "" {
			return []Line{warn("board", "is this NVIDIA's system? fulmar runs, without the GPU if its libraries are missing", "%s, %s, with no L4T release", model, os)}
		}
		return []Line{good("board", "%s, %s: no Jetson", model, os)}
	}
	jp := jet["jetpack"]
	say := fmt.Sprintf("%s, L4T %s", model, l4t)
	switch {
	case strings.HasPrefix(l4t, "32."):
		return []Line{bad("board", "JetPack 4 has glibc 2.27, and fulmar-infer wants 2.31: put JetPack 5 or later on the board (a Nano or TX2 has none)", "%s (JetPack %s)", say, jp)}
	case jp == "":
		return []Line{warn("board", "it may be newer than this fulmar: look whether models run, below", "%s, whose JetPack is not known", say)}
	}
	say += " (JetPack " + jp + ")"
	if v := packages["nvidia-jetpack"]; v != "" {
		return []Line{good("board", "%s, package nvidia-jetpack %s", say, v)}
	}
	return []Line{good("board", "%s, without the package nvidia-jetpack", say)}
}

// packages gives the versions of packages that dpkg has installed.
func (m *machine) packages(names ...string) map[string]string {
	out := map[string]string{}
	path := m.root.Path(dpkgStatus)
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return out
	}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer f.Close() //nolint:errcheck // only read
	s := bufio.NewScanner(io.LimitReader(f, maxDPKG))
	s.Buffer(nil, 1<<20)
	name, installed := "", false
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), ": ")
		switch key {
		case "Package":
			name, installed = value, false
		case "Status":
			installed = strings.HasSuffix(value, " installed")
		case "Version":
			if installed && slices.Contains(names, name) {
				out[name] = value
			}
		}
	}
	return out
}

// power tells the power mode, from the files that nvpmodel leaves, and whether the board
// is throttled by heat just now.
func power(_ context.Context, m *machine) (out []Line) {
	if conf, err := m.root.ReadOnce(modesFile, 256<<10); err == nil {
		modes := jetson.ParseModes(string(conf))
		name := jetson.Facts(m.root)["power_mode"]
		most := -1
		for id, n := range modes.Names {
			if strings.HasPrefix(strings.ToUpper(n), "MAXN") {
				most = id
			}
		}
		switch {
		case name == "":
			out = append(out, warn("power", "sudo nvpmodel -q tells it", "the power mode is not known: %s names none for the number in var/lib/nvpmodel/status", modesFile))
		case strings.HasPrefix(name, "MAXN") || most < 0:
			out = append(out, good("power", "mode %s", name))
		default:
			out = append(out, good("power", "mode %s, which limits CPU and GPU; sudo nvpmodel -m %d (%s) is the fastest, and wants cooling", name, most, modes.Names[most]))
		}
	}
	var hot []string
	names, _ := m.root.List(thermalDir)
	for _, n := range names {
		dir := thermalDir + "/" + n
		if kind, ok := strings.CutSuffix(m.text(dir+"/type"), throttleEnd); ok && !strings.HasPrefix(n, "thermal_zone") {
			if v, err := strconv.Atoi(m.text(dir + "/cur_state")); err == nil && v > 0 {
				hot = append(hot, kind)
			}
		}
	}
	if len(hot) > 0 {
		out = append(out, warn("power", "cool the board, or take a lower power mode", "throttled by heat now: %s", strings.Join(hot, ", ")))
	}
	return out
}

// yearMin and yearMax are years in which a clock may be right: this was written in 2026,
// and no board outlives the latter.
const (
	yearMin = 2026
	yearMax = 2060
)

// clock tells whether the time is right, and comes back after a power cut.
func clock(_ context.Context, m *machine) []Line {
	now := m.sys.now().UTC()
	var rtc string
	names, _ := m.root.List("sys/class/rtc")
	dead := false
	for _, n := range names {
		if s, err := strconv.ParseInt(m.text("sys/class/rtc/"+n+"/since_epoch"), 10, 64); err == nil {
			if rtc == "" {
				rtc = n
			}
			y := time.Unix(s, 0).UTC().Year()
			if dead = y < yearMin; !dead {
				rtc = n
				break
			}
		}
	}
	after := "it has a hardware clock (" + rtc + ")"
	switch {
	case rtc == "":
		after = "no hardware clock: after a power cut it is wrong until the network is there"
	case dead:
		after = "its hardware clock (" + rtc + ") has lost the time, likely for want of a battery"
	}
	if !m.live {
		return []Line{good("clock", "%s", after)}
	}
	switch y := now.Year(); {
	case y < yearMin || y > yearMax:
		return []Line{warn("clock", "sudo timedatectl set-ntp true; records are corrected once it is right", "the year is %d, which is wrong; %s", y, after)}
	case !m.sys.synced():
		return []Line{warn("clock", "sudo timedatectl set-ntp true; records are corrected once it is right", "%s UTC, kept by nothing; %s", now.Format(time.DateTime), after)}
	}
	return []Line{good("clock", "%s UTC, synchronised; %s", now.Format(time.DateTime), after)}
}

// How much room is wanted where the data is.
const (
	bytesBad   = 100 << 20
	bytesWarn  = 1 << 30
	inodesWarn = 10_000
)

// disk tells of the file system that holds the data.
func disk(_ context.Context, m *machine) []Line {
	data := m.shown.Config.Data
	var st unix.Statfs_t
	if err := m.sys.statfs(m.root.Path(data), &st); err != nil {
		return []Line{bad("disk", "install the package fulmar-agent, or make the folder that data: names in the config", "%s: %v", data, err)}
	}
	where := m.mounted(data)
	free, inodes := int64(st.Bavail)*st.Bsize, int64(st.Ffree)
	say := fmt.Sprintf("%s on %s: %s free of %s", data, where, size(free), size(int64(st.Blocks)*st.Bsize))
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		return []Line{bad("disk", "dmesg tells whether the disk failed; sudo mount -o remount,rw otherwise. Meanwhile records stay in memory", "%s is read-only (on %s)", data, where)}
	case free < bytesBad:
		return []Line{bad("disk", "make room: sudo du -xh / | sort -h | tail", "%s", say)}
	case st.Files > 0 && inodes < inodesWarn:
		return []Line{warn("disk", "files run out before bytes: look for a folder with very many", "%s, and only %d more files", say, inodes)}
	case free < bytesWarn:
		return []Line{warn("disk", "make room, or lower the bounds of spool: in the config", "%s", say)}
	}
	return []Line{good("disk", "%s", say)}
}

func size(n int64) string {
	if n < 10<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}

// mounted names the device and the file system under a path.
func (m *machine) mounted(path string) string {
	b, err := m.root.ReadOnce("proc/self/mountinfo", maxMounts)
	if err != nil {
		return "an unknown device"
	}
	best, found := "", "an unknown device"
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 2 {
			continue
		}
		if at := f[4]; len(at) >= len(best) && (path == at || at == "/" || strings.HasPrefix(path, at+"/")) {
			best, found = at, kind(g[1])+", "+g[0]
		}
	}
	return found
}

// kind says in a word what a block device is, by its name.
func kind(dev string) string {
	switch name := strings.TrimPrefix(dev, "/dev/"); {
	case strings.HasPrefix(name, "nvme"):
		return dev + " (NVMe)"
	case strings.HasPrefix(name, "mmcblk"):
		return dev + " (eMMC or SD card)"
	case strings.HasPrefix(name, "sd"):
		return dev + " (SATA or USB)"
	}
	return dev
}
