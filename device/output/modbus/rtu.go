// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultBaud = 19200
	bitsPerByte = 11 // start, eight of data, parity, stop (or two stops)
	// minQuiet is the silence between two frames above 19200 baud (section 2.5.1.1).
	minQuiet = 1750 * time.Microsecond
	// settle is how long a line is left alone after an answer that did not come or was no
	// frame: RTU has no numbers, so a late answer must not be taken for the next one.
	settle = 100 * time.Millisecond
)

// rtu frames with the device before and a checksum behind; frames end by their length.
type rtu struct {
	quiet time.Duration // 3.5 bytes of silence before a frame
	last  time.Time
	upset bool
}

func newRTU(cfg *Config) *rtu {
	baud := cfg.Baud
	if baud == 0 {
		baud = defaultBaud
	}
	quiet := time.Duration(3.5 * bitsPerByte * float64(time.Second) / float64(baud))
	return &rtu{quiet: max(quiet, minQuiet)}
}

func (t *rtu) exchange(l line, device byte, ask []byte) ([]byte, error) {
	wait := t.quiet
	if t.upset {
		wait = settle
	}
	time.Sleep(time.Until(t.last.Add(wait)))
	t.upset = true
	defer func() { t.last = time.Now() }()
	if f, ok := l.(interface{ flush() error }); ok {
		if err := f.flush(); err != nil {
			return nil, err
		}
	}
	b := append([]byte{device}, ask...)
	if _, err := l.Write(binary.LittleEndian.AppendUint16(b, crc16(b))); err != nil {
		return nil, err
	}
	answer, err := readRTU(l, device)
	t.upset = err != nil
	return answer, err
}

// readRTU reads one answer. How long it is stands in its first three bytes.
func readRTU(r io.Reader, device byte) ([]byte, error) {
	b := make([]byte, 3, 3+maxPDU+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	rest := 0
	switch {
	case b[1]&exceptionBit != 0:
		rest = 2
	case b[1] == readCoils || b[1] == readHolding || b[1] == readInput:
		rest = int(b[2]) + 2
	case b[1] == writeCoil || b[1] == writeRegister:
		rest = 5
	default:
		return nil, fmt.Errorf("its answer begins with % x, which is not Modbus", b)
	}
	if 3+rest > cap(b) {
		return nil, fmt.Errorf("its answer begins with % x and would be %d bytes long", b, 3+rest)
	}
	b = b[:3+rest]
	if _, err := io.ReadFull(r, b[3:]); err != nil {
		return nil, fmt.Errorf("its answer is cut off: %w", err)
	}
	body := b[:len(b)-2]
	if crc16(body) != binary.LittleEndian.Uint16(b[len(body):]) {
		return nil, errors.New("its answer is garbled (checksum); look at the line's baud, parity and ends")
	}
	if b[0] != device {
		return nil, fmt.Errorf("device %d answers", b[0])
	}
	return body[1:], nil
}

// crc16 is the checksum of section 2.5.1.2: polynomial 0xA001, beginning with ones.
func crc16(b []byte) uint16 {
	c := uint16(0xFFFF)
	for _, x := range b {
		c ^= uint16(x)
		for range 8 {
			odd := c&1 != 0
			if c >>= 1; odd {
				c ^= 0xA001
			}
		}
	}
	return c
}

// serial is an open terminal line.
type serial struct{ *os.File }

// openSerial opens a line raw, for us alone.
func openSerial(path string, cfg *Config) (line, error) {
	// Not blocking: a line without carrier would not open, and reads need deadlines.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := rawLine(fd, cfg); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("set up %s: %w", path, err)
	}
	return serial{f}, nil
}

func rawLine(fd int, cfg *Config) error {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another program has it: %w", err)
	}
	t := unix.Termios{Iflag: unix.INPCK, Cflag: unix.CREAD | unix.CLOCAL | unix.CS8 | unix.BOTHER}
	baud := cfg.Baud
	if baud == 0 {
		baud = defaultBaud
	}
	t.Ispeed, t.Ospeed = uint32(baud), uint32(baud)
	switch cfg.Parity {
	case "", "even":
		t.Cflag |= unix.PARENB
	case "odd":
		t.Cflag |= unix.PARENB | unix.PARODD
	}
	if cfg.StopBits == 2 {
		t.Cflag |= unix.CSTOPB
	}
	t.Cc[unix.VMIN] = 1
	return unix.IoctlSetTermios(fd, unix.TCSETS2, &t)
}

// flush throws away what came in and was not asked for.
func (s serial) flush() error {
	c, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var bad error
	err = c.Control(func(fd uintptr) { bad = unix.IoctlSetInt(int(fd), unix.TCFLSH, unix.TCIFLUSH) })
	return errors.Join(err, bad)
}
