// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gpio

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fake is a kernel with one chip of lines, as gpiolib-cdev.c behaves.
type fake struct {
	lines  []fakeLine
	next   int
	open1  map[int]string // of a chip, by descriptor
	held   map[int]uint32 // a line, by descriptor
	broken error
	log    []string
}

type fakeLine struct {
	name, user string
	output     bool
	level      bool // physical
	flags      uint64
}

func newFake() *fake {
	return &fake{next: 3, open1: map[int]string{}, held: map[int]uint32{}, lines: []fakeLine{{name: "PH.05"}, {name: "PH.06"}, {name: "7", user: "sysfs"}, {output: true, level: true}}}
}

func (f *fake) chips() []string { return []string{"/dev/gpiochip0", "/dev/gpiochip1"} }

func (f *fake) open(path string) (int, error) {
	if path != "/dev/gpiochip0" && path != "/dev/gpiochip1" {
		return 0, unix.ENOENT
	}
	f.next++
	f.open1[f.next] = path
	return f.next, nil
}

func (f *fake) close(fd int) {
	if n, ok := f.held[fd]; ok {
		f.lines[n].user = ""
	}
	delete(f.held, fd)
	delete(f.open1, fd)
}

func (f *fake) ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	if path, ok := f.open1[fd]; ok {
		return f.chip(path, req, arg)
	}
	n, ok := f.held[fd]
	if !ok {
		return unix.EBADF
	}
	if f.broken != nil {
		return f.broken
	}
	l := &f.lines[n]
	low := l.flags&flagActiveLow != 0
	switch req {
	case ioSetConfig:
		c := (*lineConfig)(arg)
		if c.flags&flagOutput == 0 || c.numAttrs != 1 || c.attrs[0].attr.id != attrValues || c.attrs[0].mask != 1 {
			return unix.EINVAL
		}
		l.flags, l.output = c.flags, true
		l.level = (c.attrs[0].attr.value&1 != 0) != (c.flags&flagActiveLow != 0)
		f.log = append(f.log, fmt.Sprintf("output %s %v", l.name, l.level))
	case ioSetValues:
		v := (*lineValues)(arg)
		if !l.output || v.mask != 1 {
			return unix.EPERM
		}
		l.level = (v.bits&1 != 0) != low
		f.log = append(f.log, fmt.Sprintf("set %s %v", l.name, l.level))
	case ioGetValues:
		v := (*lineValues)(arg)
		if v.bits = 0; l.level != low {
			v.bits = 1
		}
	default:
		return unix.ENOTTY
	}
	return nil
}

func (f *fake) chip(path string, req uintptr, arg unsafe.Pointer) error {
	switch req {
	case ioChipInfo:
		c := (*chipInfo)(arg)
		copy(c.label[:], map[string]string{"/dev/gpiochip0": "other", "/dev/gpiochip1": "tegra234-gpio"}[path])
		if path == "/dev/gpiochip1" {
			c.lines = uint32(len(f.lines))
		}
	case ioLineInfo:
		i := (*lineInfo)(arg)
		if int(i.offset) >= len(f.lines) {
			return unix.EINVAL
		}
		l := f.lines[i.offset]
		copy(i.name[:], l.name)
		copy(i.consumer[:], l.user)
		if l.output {
			i.flags |= flagOutput
		}
	case ioGetLine:
		r := (*lineRequest)(arg)
		l := &f.lines[r.offsets[0]]
		if l.user != "" {
			return unix.EBUSY
		}
		if r.numLines != 1 || r.config.flags&^flagActiveLow != 0 {
			return unix.EINVAL // as it is: neither direction nor drive
		}
		l.user, l.flags = text(r.consumer[:]), r.config.flags
		f.next++
		f.held[f.next] = r.offsets[0]
		r.fd = int32(f.next)
	default:
		return unix.ENOTTY
	}
	return nil
}

func line(f *fake, cfg Config) *Line {
	l := New("x", cfg)
	l.sys = f
	return l
}

func TestLine(t *testing.T) {
	t.Parallel()
	f := newFake()
	l := line(f, Config{Chip: "tegra234-gpio", Line: "PH.06", ActiveLow: true, Drive: "open-drain"})
	if _, known, err := l.Get(t.Context()); known || err != nil {
		t.Fatal("a line that is no output is known", err)
	}
	if f.lines[1].user != consumer || f.lines[1].output {
		t.Errorf("before the first set: %+v", f.lines[1])
	}
	for _, v := range []float64{1, 0, 1} {
		if err := l.Set(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		if got, known, err := l.Get(t.Context()); got != v || !known || err != nil {
			t.Error(got, known, err)
		}
	}
	if got := fmt.Sprint(f.log); got != "[output PH.06 false set PH.06 true set PH.06 false]" || f.lines[1].flags != flagOutput|flagOpenDrain|flagActiveLow {
		t.Error(got, f.lines[1].flags)
	}
	if len(f.open1) != 0 || len(f.held) != 1 {
		t.Error("descriptors", f.open1, f.held)
	}
	// A chip that is gone: the next word looks for it anew.
	f.broken = unix.ENODEV
	if err := l.Set(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "PH.06 of tegra234-gpio") {
		t.Error(err)
	}
	f.broken = nil
	if err := l.Set(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil || len(f.held) != 0 {
		t.Error(err, f.held)
	}
}

func TestWhichLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Chip: "/dev/gpiochip1", Line: "0"}, ""},
		{Config{Chip: "/dev/gpiochip1", Line: "3"}, ""},
		{Config{Chip: "/dev/gpiochip1", Line: "7"}, "in use by \"sysfs\""}, // the name goes before the number
		{Config{Chip: "/dev/gpiochip1", Line: "4"}, "no such line among its 4"},
		{Config{Chip: "/dev/gpiochip1", Line: "PH.99"}, "no such line among its 4"},
		{Config{Chip: "/dev/gpiochip9", Line: "0"}, "open /dev/gpiochip9"},
		{Config{Chip: "nowhere", Line: "0"}, "no chip with this label among /dev/gpiochip0, /dev/gpiochip1"},
	} {
		err := line(newFake(), c.cfg).Set(t.Context(), 1)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, wants %q", c.cfg, err, c.want)
		}
	}
	// What is an output already is told before anybody sets it.
	if v, known, err := line(newFake(), Config{Chip: "/dev/gpiochip1", Line: "3"}).Get(t.Context()); v != 1 || !known || err != nil {
		t.Error(v, known, err)
	}
}

// TestHeader holds sizes, places and numbers equal to the kernel's header.
func TestHeader(t *testing.T) {
	t.Parallel()
	gcc, err := exec.LookPath("gcc")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "a.c")
	const program = `#include <stdio.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <linux/gpio.h>
#define P(x) printf("%s %lu\n", #x, (unsigned long)(x));
int main(void) {
P(sizeof(struct gpiochip_info)) P(offsetof(struct gpiochip_info, lines))
P(sizeof(struct gpio_v2_line_request)) P(offsetof(struct gpio_v2_line_request, consumer)) P(offsetof(struct gpio_v2_line_request, config)) P(offsetof(struct gpio_v2_line_request, num_lines)) P(offsetof(struct gpio_v2_line_request, fd))
P(sizeof(struct gpio_v2_line_config)) P(offsetof(struct gpio_v2_line_config, num_attrs)) P(offsetof(struct gpio_v2_line_config, attrs))
P(sizeof(struct gpio_v2_line_config_attribute)) P(offsetof(struct gpio_v2_line_config_attribute, mask)) P(offsetof(struct gpio_v2_line_attribute, values))
P(sizeof(struct gpio_v2_line_info)) P(offsetof(struct gpio_v2_line_info, consumer)) P(offsetof(struct gpio_v2_line_info, offset)) P(offsetof(struct gpio_v2_line_info, flags))
P(sizeof(struct gpio_v2_line_values)) P(offsetof(struct gpio_v2_line_values, mask))
P(GPIO_GET_CHIPINFO_IOCTL) P(GPIO_V2_GET_LINEINFO_IOCTL) P(GPIO_V2_GET_LINE_IOCTL) P(GPIO_V2_LINE_SET_CONFIG_IOCTL) P(GPIO_V2_LINE_GET_VALUES_IOCTL) P(GPIO_V2_LINE_SET_VALUES_IOCTL)
P(GPIO_V2_LINE_FLAG_ACTIVE_LOW) P(GPIO_V2_LINE_FLAG_OUTPUT) P(GPIO_V2_LINE_FLAG_OPEN_DRAIN) P(GPIO_V2_LINE_FLAG_OPEN_SOURCE) P(GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES) P(GPIO_V2_LINES_MAX) P(GPIO_MAX_NAME_SIZE) P(GPIO_V2_LINE_NUM_ATTRS_MAX)
return 0; }`
	if err := os.WriteFile(src, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-o", filepath.Join(dir, "a"), src).CombinedOutput(); err != nil {
		if old := strings.Contains(string(out), "gpio_v2_line_request") || strings.Contains(string(out), "linux/gpio.h: No such"); old && os.Getenv("CI") == "" {
			t.Skip("the header is older than the interface")
		}
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(filepath.Join(dir, "a")).Output()
	if err != nil {
		t.Fatal(err)
	}
	var r lineRequest
	var c lineConfig
	var a configAttr
	var i lineInfo
	var v lineValues
	var chip chipInfo
	want := []uintptr{
		unsafe.Sizeof(chip), unsafe.Offsetof(chip.lines),
		unsafe.Sizeof(r), unsafe.Offsetof(r.consumer), unsafe.Offsetof(r.config), unsafe.Offsetof(r.numLines), unsafe.Offsetof(r.fd),
		unsafe.Sizeof(c), unsafe.Offsetof(c.numAttrs), unsafe.Offsetof(c.attrs),
		unsafe.Sizeof(a), unsafe.Offsetof(a.mask), unsafe.Offsetof(a.attr.value),
		unsafe.Sizeof(i), unsafe.Offsetof(i.consumer), unsafe.Offsetof(i.offset), unsafe.Offsetof(i.flags),
		unsafe.Sizeof(v), unsafe.Offsetof(v.mask),
		ioChipInfo, ioLineInfo, ioGetLine, ioSetConfig, ioGetValues, ioSetValues,
		flagActiveLow, flagOutput, flagOpenDrain, flagOpenSource, attrValues, maxLines, nameSize, maxAttrs,
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d numbers, wants %d", len(lines), len(want))
	}
	for n, l := range lines {
		at := strings.LastIndexByte(l, ' ')
		if name, got := l[:at], l[at+1:]; got != fmt.Sprint(want[n]) {
			t.Errorf("%s is %s, and %d here", name, got, want[n])
		}
	}
}

// TestKernel drives a line of the running kernel; `make test-gpio` runs it on the PL061 of
// an emulated arm64 machine. FULMAR_GPIO=CHIP/LINE names a line that may be driven.
func TestKernel(t *testing.T) {
	chip, name, ok := strings.Cut(os.Getenv("FULMAR_GPIO"), "/")
	if !ok {
		t.Skip("FULMAR_GPIO names no line")
	}
	for _, low := range []bool{false, true} {
		l := New("x", Config{Chip: chip, Line: name, ActiveLow: low})
		for _, v := range []float64{1, 0, 1, 1, 0} {
			if err := l.Set(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			if got, known, err := l.Get(t.Context()); got != v || !known || err != nil {
				t.Errorf("set %v, reads %v, %v, %v", v, got, known, err)
			}
			want := map[bool]string{true: "out hi", false: "out lo"}[(v == 1) != low]
			if got := debugLine(t); !strings.Contains(got, want) || !strings.Contains(got, consumer) {
				t.Errorf("set %v: the kernel says %q, wants %q", v, got, want)
			}
		}
		if err := New("y", Config{Chip: chip, Line: name}).Set(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "in use by \"fulmard\"") {
			t.Error("the same line again:", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		z := New("z", Config{Chip: chip, Line: name, ActiveLow: low})
		if got, known, err := z.Get(t.Context()); got != 0 || !known || err != nil {
			t.Errorf("after it was given back it reads %v, %v, %v", got, known, err)
		}
		_ = z.Close()
	}
}

// debugLine is what the kernel's own list says of the line that fulmard has.
func debugLine(t *testing.T) string {
	b, err := os.ReadFile("/sys/kernel/debug/gpio")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if strings.Contains(l, consumer) {
			return l
		}
	}
	return ""
}
