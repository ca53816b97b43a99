// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxFact     = 128     // bytes of one fact; the longest model name known has 65
	maxFactFile = 8 << 10 // bytes of one file read for a fact; /proc/cpuinfo of one core is near 1.5 KiB
)

// BootID gives the first 8 bytes of the kernel's boot id, for [schema.NewClock].
func BootID(r Root) (uint64, error) {
	const p = "proc/sys/kernel/random/boot_id"
	b, err := r.ReadOnce(p, 64)
	if err != nil {
		return 0, err
	}
	s := strings.ReplaceAll(string(TrimSpace(b)), "-", "")
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != 16 {
		return 0, fmt.Errorf("read %s: %d bytes are no boot id", p, len(b))
	}
	return binary.BigEndian.Uint64(raw), nil
}

// BootMono gives the time since boot, suspend included (CLOCK_BOOTTIME).
func BootMono() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// Facts tells what the board is: model, kernel, arch, os, l4t, memory_bytes, cpus.
// What is not known is left out. Each value is printable and at most 128 bytes.
func Facts(r Root) map[string]string {
	m := map[string]string{"arch": runtime.GOARCH}
	set := func(k, v string) {
		if v = printable(v); v != "" {
			m[k] = v
		}
	}
	set("model", model(r))
	set("kernel", r.text("proc/sys/kernel/osrelease"))
	set("os", osName(r.text("etc/os-release")))
	set("l4t", ParseL4T(r.text("etc/nv_tegra_release")))
	if kb, ok := memTotal([]byte(r.text("proc/meminfo"))); ok {
		set("memory_bytes", strconv.FormatInt(kb<<10, 10))
	}
	if n := onlineCPUs(r.text("sys/devices/system/cpu/online")); n > 0 {
		set("cpus", strconv.Itoa(n))
	}
	return m
}

func (r Root) text(p string) string {
	b, err := r.ReadOnce(p, maxFactFile)
	if err != nil {
		return ""
	}
	return string(TrimSpace(b))
}

// model prefers the device tree (boards), then DMI (PCs), then the CPU's name
// (virtual machines that have neither).
func model(r Root) string {
	for _, p := range []string{
		"proc/device-tree/model", "sys/firmware/devicetree/base/model",
		"sys/class/dmi/id/product_name",
	} {
		if s := r.text(p); s != "" {
			return s
		}
	}
	return cpuModel(r.text("proc/cpuinfo"))
}

func cpuModel(cpuinfo string) string {
	for line := range strings.SplitSeq(cpuinfo, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func osName(release string) string {
	for line := range strings.SplitSeq(release, "\n") {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"'`)
		}
	}
	return ""
}

// ParseL4T reads the release out of the first line of /etc/nv_tegra_release,
// "# R36 (release), REVISION: 4.4, ..." giving "36.4.4"; "" where it is none. The
// BOARD field there is not reliable and is not used.
func ParseL4T(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	s, ok := strings.CutPrefix(strings.TrimLeft(s, "# "), "R")
	if !ok {
		return ""
	}
	major, rest, ok := strings.Cut(s, " ")
	_, rev, ok2 := strings.Cut(rest, "REVISION: ")
	rev, _, _ = strings.Cut(rev, ",")
	if rev = strings.TrimSpace(rev); !ok || !ok2 || !dotted(major) || !dotted(rev) {
		return ""
	}
	return major + "." + rev
}

func dotted(s string) bool {
	return s != "" && len(s) < 16 && strings.Trim(s, "0123456789.") == ""
}

func memTotal(meminfo []byte) (kb int64, ok bool) {
	for len(meminfo) > 0 {
		var line []byte
		line, meminfo = NextLine(meminfo)
		if v, found := bytes.CutPrefix(line, []byte("MemTotal:")); found {
			kb, _, ok = NextInt(v)
			return kb, ok && kb >= 0 && kb < 1<<40
		}
	}
	return 0, false
}

// onlineCPUs counts a list such as "0-3,6"; 0 where it is none.
func onlineCPUs(list string) int {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, ranged := strings.Cut(part, "-")
		if !ranged {
			hi = lo
		}
		a, err1 := strconv.ParseUint(lo, 10, 16)
		b, err2 := strconv.ParseUint(hi, 10, 16)
		if err1 != nil || err2 != nil || b < a {
			return 0
		}
		n += int(b-a) + 1
	}
	return n
}

func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, s)
	if len(s) > maxFact {
		s = s[:maxFact]
	}
	return strings.TrimSpace(s)
}
