// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gpio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// consumer is what `gpioinfo` shows as the line's user.
	consumer = "fulmard"
	// maxChips and maxOffsets bound a search: a Jetson has two chips of some 200 lines.
	maxChips   = 64
	maxOffsets = 4096
)

// Config says which line.
type Config struct {
	// Chip is a path (/dev/gpiochip0) or the chip's label (tegra234-gpio). Numbers of chips
	// may change from boot to boot, labels do not.
	Chip string `yaml:"chip"`
	// Line is the line's name (PH.06) or its offset in the chip.
	Line string `yaml:"line"`
	// ActiveLow: on (1) is the low level.
	ActiveLow bool `yaml:"active_low"`
	// Drive is "" (push-pull), open-drain or open-source.
	Drive string `yaml:"drive"`
}

// Validate checks the form.
func (c *Config) Validate() error {
	switch {
	case c.Chip == "" || len(c.Chip) >= nameSize && !filepath.IsAbs(c.Chip):
		return fmt.Errorf("chip: %q, wants a path such as /dev/gpiochip0 or a label of less than %d bytes", c.Chip, nameSize)
	case c.Line == "" || len(c.Line) >= nameSize:
		return fmt.Errorf("line: %q, wants a name of less than %d bytes or an offset", c.Line, nameSize)
	case c.Drive != "" && c.Drive != "open-drain" && c.Drive != "open-source":
		return fmt.Errorf("drive: %q, wants open-drain, open-source or nothing", c.Drive)
	}
	return nil
}

// Line is one line. Safe for concurrent use.
type Line struct {
	name string
	cfg  Config
	sys  system

	mu     sync.Mutex
	fd     int // -1 closed
	output bool
}

// New makes a line that is not open yet.
func New(name string, cfg Config) *Line { return &Line{name: name, cfg: cfg, sys: kernel{}, fd: -1} }

// Name is the output's.
func (l *Line) Name() string { return l.name }

// Set drives the line: 0 is off, anything else on. The context is not asked: the kernel
// answers at once, and where a chip behind a bus hangs nothing can end the call.
func (l *Line) Set(_ context.Context, value float64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hold(func() error {
		bits := uint64(0)
		if value != 0 {
			bits = 1
		}
		if l.output {
			if err := l.sys.ioctl(l.fd, ioSetValues, unsafe.Pointer(&lineValues{bits: bits, mask: 1})); err != nil {
				return fmt.Errorf("set: %w", err)
			}
			return nil
		}
		cfg := lineConfig{flags: l.flags() | flagOutput | l.drive(), numAttrs: 1}
		cfg.attrs[0] = configAttr{attr: lineAttr{id: attrValues, value: bits}, mask: 1}
		if err := l.sys.ioctl(l.fd, ioSetConfig, unsafe.Pointer(&cfg)); err != nil {
			return fmt.Errorf("make it an output: %w", err)
		}
		l.output = true
		return nil
	})
}

// Get reads the line's level; known is false while it is no output.
func (l *Line) Get(context.Context) (value float64, known bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.hold(func() error {
		if !l.output {
			return nil
		}
		v := lineValues{mask: 1}
		if err := l.sys.ioctl(l.fd, ioGetValues, unsafe.Pointer(&v)); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		value, known = float64(v.bits&1), true
		return nil
	})
	return value, known, err
}

// Close gives the line back to the kernel.
func (l *Line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop()
	return nil
}

func (l *Line) drop() {
	if l.fd >= 0 {
		l.sys.close(l.fd)
	}
	l.fd, l.output = -1, false
}

// hold opens the line where it is not open, does something with it, and gives it up after
// an error: a chip on USB that was pulled out comes back as another.
func (l *Line) hold(do func() error) error {
	if l.fd < 0 {
		if err := l.open(); err != nil {
			return fmt.Errorf("GPIO line %s of %s: %w", l.cfg.Line, l.cfg.Chip, err)
		}
	}
	if err := do(); err != nil {
		l.drop()
		return fmt.Errorf("GPIO line %s of %s: %w", l.cfg.Line, l.cfg.Chip, err)
	}
	return nil
}

func (l *Line) flags() uint64 {
	if l.cfg.ActiveLow {
		return flagActiveLow
	}
	return 0
}

func (l *Line) drive() uint64 {
	switch l.cfg.Drive {
	case "open-drain":
		return flagOpenDrain
	case "open-source":
		return flagOpenSource
	}
	return 0
}

// open asks for the line as it is.
func (l *Line) open() error {
	chip, lines, err := l.chip()
	if err != nil {
		return err
	}
	defer l.sys.close(chip)
	info, err := l.find(chip, lines)
	if err != nil {
		return err
	}
	req := lineRequest{numLines: 1, config: lineConfig{flags: l.flags()}}
	req.offsets[0] = info.offset
	copy(req.consumer[:], consumer)
	if err := l.sys.ioctl(chip, ioGetLine, unsafe.Pointer(&req)); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("it is in use by %q; end that program, or take another line", text(info.consumer[:]))
		}
		return fmt.Errorf("ask for it: %w", err)
	}
	l.fd, l.output = int(req.fd), info.flags&flagOutput != 0
	return nil
}

// chip opens the chip by its path or label.
func (l *Line) chip() (fd int, lines uint32, err error) {
	paths := []string{l.cfg.Chip}
	byLabel := !filepath.IsAbs(l.cfg.Chip)
	if byLabel {
		paths = l.sys.chips()
	}
	var last error
	for _, p := range paths[:min(len(paths), maxChips)] {
		fd, err := l.sys.open(p)
		if err != nil {
			last = fmt.Errorf("open %s: %w", p, err)
			continue
		}
		var info chipInfo
		if err := l.sys.ioctl(fd, ioChipInfo, unsafe.Pointer(&info)); err != nil {
			l.sys.close(fd)
			last = fmt.Errorf("ask %s for its lines: %w", p, err)
			continue
		}
		if !byLabel || text(info.label[:]) == l.cfg.Chip {
			return fd, min(info.lines, maxOffsets), nil
		}
		l.sys.close(fd)
	}
	if byLabel {
		return 0, 0, errors.Join(fmt.Errorf("there is no chip with this label among %s; gpiodetect lists them", strings.Join(paths, ", ")), last)
	}
	return 0, 0, last
}

// find gives the line by name or offset. A name is looked for first: one that is a number
// is somebody's choice.
func (l *Line) find(chip int, lines uint32) (lineInfo, error) {
	for i := range lines {
		info := lineInfo{offset: i}
		if err := l.sys.ioctl(chip, ioLineInfo, unsafe.Pointer(&info)); err != nil {
			return info, fmt.Errorf("ask for its line %d: %w", i, err)
		}
		if text(info.name[:]) == l.cfg.Line {
			return info, nil
		}
	}
	n, err := strconv.ParseUint(l.cfg.Line, 10, 32)
	if err != nil || uint32(n) >= lines {
		return lineInfo{}, fmt.Errorf("the chip has no such line among its %d; gpioinfo lists them", lines)
	}
	info := lineInfo{offset: uint32(n)}
	if err := l.sys.ioctl(chip, ioLineInfo, unsafe.Pointer(&info)); err != nil {
		return info, fmt.Errorf("ask for its line %d: %w", n, err)
	}
	return info, nil
}

func (kernel) chips() []string {
	found, _ := filepath.Glob("/dev/gpiochip*") // the pattern is good
	slices.Sort(found)
	return found
}

// text is a name as the kernel gives it: up to its first zero.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
