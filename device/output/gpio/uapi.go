// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gpio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What include/uapi/linux/gpio.h names with GPIO_V2_ and gpio_v2_. A test compiles the
// header and compares sizes, places and numbers.
const (
	maxLines = 64 // of one request; one is used
	nameSize = 32
	maxAttrs = 10

	flagActiveLow  = 1 << 1
	flagOutput     = 1 << 3
	flagOpenDrain  = 1 << 6
	flagOpenSource = 1 << 7
	attrValues     = 2 // GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES
)

type chipInfo struct {
	name, label [nameSize]byte
	lines       uint32
}

type lineAttr struct {
	id, _ uint32
	value uint64 // a union: flags, values, or microseconds
}

type configAttr struct {
	attr lineAttr
	mask uint64
}

type lineConfig struct {
	flags    uint64
	numAttrs uint32
	_        [5]uint32
	attrs    [maxAttrs]configAttr
}

type lineRequest struct {
	offsets     [maxLines]uint32
	consumer    [nameSize]byte
	config      lineConfig
	numLines    uint32
	eventBuffer uint32
	_           [5]uint32
	fd          int32
}

type lineInfo struct {
	name, consumer [nameSize]byte
	offset         uint32
	numAttrs       uint32
	flags          uint64
	attrs          [maxAttrs]lineAttr
	_              [4]uint32
}

type lineValues struct{ bits, mask uint64 }

// The requests, as _IOR and _IOWR make them.
const (
	ioRead, ioWrite = 2, 1
	ioChipInfo      = ioRead<<30 | unsafe.Sizeof(chipInfo{})<<16 | 0xB4<<8 | 0x01
	ioLineInfo      = (ioRead|ioWrite)<<30 | unsafe.Sizeof(lineInfo{})<<16 | 0xB4<<8 | 0x05
	ioGetLine       = (ioRead|ioWrite)<<30 | unsafe.Sizeof(lineRequest{})<<16 | 0xB4<<8 | 0x07
	ioSetConfig     = (ioRead|ioWrite)<<30 | unsafe.Sizeof(lineConfig{})<<16 | 0xB4<<8 | 0x0D
	ioGetValues     = (ioRead|ioWrite)<<30 | unsafe.Sizeof(lineValues{})<<16 | 0xB4<<8 | 0x0E
	ioSetValues     = (ioRead|ioWrite)<<30 | unsafe.Sizeof(lineValues{})<<16 | 0xB4<<8 | 0x0F
)

// system is the border to the kernel; tests put a chip of their own there.
type system interface {
	open(path string) (fd int, err error)
	ioctl(fd int, req uintptr, arg unsafe.Pointer) error
	close(fd int)
	chips() []string // paths
}

type kernel struct{}

func (kernel) open(path string) (int, error) { return unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0) }

func (kernel) close(fd int) { _ = unix.Close(fd) }

func (kernel) ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR { // Go's signals; the kernel has done nothing then
			return errno
		}
	}
}
