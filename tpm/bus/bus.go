// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headerBytes = 10   // tag, size, code
	maxMessage  = 4096 // TPM2_PT_MAX_RESPONSE_SIZE of every known TPM; the kernel's buffer too
	maxRetries  = 12   // with the waits below 2.5 s, as the kernel waits
	firstWait   = 2 * time.Millisecond
	longestWait = 500 * time.Millisecond
)

// What went wrong, for errors.Is.
var (
	ErrNoTPM      = errors.New("there is no TPM")
	ErrPermission = errors.New("no right to open the TPM (is the user in group tss?)")
	ErrBusy       = errors.New("the TPM is busy or used by another program, try later")
	ErrTimeout    = errors.New("the TPM did not answer in time")
	ErrGone       = errors.New("the connection to the TPM broke")
	ErrProtocol   = errors.New("the TPM answered something that is no answer")
)

// link is one open connection.
type link interface {
	// exchange sends cmd and gives the answer, read into buf.
	exchange(cmd, buf []byte, deadline time.Time) (int, error)
	Close() error
}

// Bus sends one command at a time and opens the TPM again after a failure. It never
// repeats a command that the TPM may have carried out.
type Bus struct {
	mu      sync.Mutex
	path    string
	timeout time.Duration // of one command
	link    link
	opens   int // how often it was opened
	closed  bool
	buf     [maxMessage]byte
}

// New gives the bus to a TPM at a node (/dev/tpmrm0) or a socket of a software TPM
// (unix:/path, tcp:host:port). It is opened when it is first needed.
func New(path string, timeout time.Duration) *Bus { return &Bus{path: path, timeout: timeout} }

// Open opens it, unless it is open, and gives how often it was opened: with each time
// the TPM may be another, or may hold what was left in it.
func (t *Bus) Open() (times int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err = t.open()
	return t.opens, err
}

// Send implements the transport of go-tpm. Its errors wrap one of this package's.
func (t *Bus) Send(cmd []byte) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := firstWait
	deadline := time.Now().Add(t.timeout)
	for try := 0; ; try++ {
		rsp, err := t.once(cmd, deadline)
		if err != nil {
			return nil, err
		}
		if !again(rsp) {
			return rsp, nil
		}
		if try == maxRetries || time.Now().Add(wait).After(deadline) {
			return nil, fmt.Errorf("%w: it asked %d times for a retry", ErrBusy, try+1)
		}
		time.Sleep(wait)
		wait = min(2*wait, longestWait)
	}
}

// again: RETRY, YIELDED, TESTING and NV_RATE say that the command was not begun.
func again(rsp []byte) bool {
	switch binary.BigEndian.Uint32(rsp[6:10]) {
	case 0x922, 0x908, 0x90A, 0x920:
		return true
	}
	return false
}

func (t *Bus) once(cmd []byte, deadline time.Time) ([]byte, error) {
	if err := t.open(); err != nil {
		return nil, err
	}
	n, err := t.link.exchange(cmd, t.buf[:], deadline)
	if err == nil {
		err = check(t.buf[:n])
	}
	if err != nil {
		_ = t.link.Close() // what comes late must not answer the next command
		t.link = nil
		return nil, err
	}
	return append([]byte(nil), t.buf[:n]...), nil
}

func check(rsp []byte) error {
	if len(rsp) < headerBytes {
		return fmt.Errorf("%w: %d bytes", ErrProtocol, len(rsp))
	}
	tag, size := binary.BigEndian.Uint16(rsp), binary.BigEndian.Uint32(rsp[2:])
	if tag != 0x8001 && tag != 0x8002 && tag != 0x00c4 || int64(size) != int64(len(rsp)) {
		return fmt.Errorf("%w: tag %#x, size %d in %d bytes", ErrProtocol, tag, size, len(rsp))
	}
	return nil
}

func (t *Bus) open() error {
	if t.closed {
		return fmt.Errorf("%w: it was closed", ErrGone)
	}
	if t.link != nil {
		return nil
	}
	var err error
	network, addr, socket := strings.Cut(t.path, ":")
	if socket && (network == "unix" || network == "tcp") {
		var c net.Conn
		if c, err = net.DialTimeout(network, addr, min(t.timeout, 5*time.Second)); err == nil {
			t.link = stream{c}
		}
	} else {
		var fd int
		if fd, err = unix.Open(t.path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err == nil {
			t.link = node(fd)
		}
	}
	if err != nil {
		return opened(t.path, err)
	}
	t.opens++
	return nil
}

// Close closes the connection for good.
func (t *Bus) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.link == nil {
		return nil
	}
	err := t.link.Close()
	t.link = nil
	return err
}

// stream is a socket of swtpm: bytes with no borders but the header's size.
type stream struct{ net.Conn }

func (s stream) exchange(cmd, buf []byte, deadline time.Time) (int, error) {
	if err := s.SetDeadline(deadline); err != nil {
		return 0, broke(err)
	}
	if _, err := s.Write(cmd); err != nil {
		return 0, broke(err)
	}
	if n, err := io.ReadFull(s, buf[:headerBytes]); err != nil {
		return n, broke(err)
	}
	size := binary.BigEndian.Uint32(buf[2:])
	if size < headerBytes || int64(size) > int64(len(buf)) {
		return 0, fmt.Errorf("%w: an answer of %d bytes", ErrProtocol, size)
	}
	if _, err := io.ReadFull(s, buf[headerBytes:size]); err != nil {
		return 0, broke(err)
	}
	return int(size), nil
}

func broke(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it was cut short: %w", ErrProtocol, err)
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}

// node is /dev/tpmrm0 or /dev/tpm0. The driver gives an answer whole in one read,
// and nothing at all to a read that comes too early: so poll first, with a bound.
type node int

func (d node) exchange(cmd, buf []byte, deadline time.Time) (int, error) {
	if n, err := unix.Write(int(d), cmd); err != nil || n != len(cmd) {
		if errors.Is(err, syscall.EBUSY) {
			return 0, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return 0, fmt.Errorf("%w: wrote %d of %d bytes: %w", ErrGone, n, len(cmd), errors.Join(err))
	}
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return 0, ErrTimeout
		}
		p := []unix.PollFd{{Fd: int32(d), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(left/time.Millisecond)+1)
		if errors.Is(err, syscall.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrGone, err)
		}
		if n, err = unix.Read(int(d), buf); errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN) {
			continue
		} else if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrGone, err)
		}
		return n, nil
	}
}

func (d node) Close() error { return unix.Close(int(d)) }

// opened is the class of an error of opening a node or socket.
func opened(path string, err error) error {
	c := ErrGone
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		c = ErrNoTPM
	case errors.Is(err, os.ErrPermission):
		c = ErrPermission
	case errors.Is(err, syscall.EBUSY):
		c = ErrBusy
	}
	return fmt.Errorf("%s: %w: %w", path, c, err)
}

// Driver is the kernel's driver of the node, "virtual" for one with no device behind
// it, "" if there is no telling.
func (t *Bus) Driver() string { return driver("/sys", t.path) }

func driver(sys, path string) string {
	n, ok := strings.CutPrefix(filepath.Base(path), "tpmrm")
	if !ok {
		n, ok = strings.CutPrefix(filepath.Base(path), "tpm")
	}
	if !ok || filepath.Dir(path) != "/dev" {
		return ""
	}
	at, err := filepath.EvalSymlinks(filepath.Join(sys, "class/tpm/tpm"+n))
	if err != nil {
		return ""
	}
	if strings.Contains(at, "/devices/virtual/") {
		return "virtual"
	}
	d, err := filepath.EvalSymlinks(filepath.Join(at, "device/driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(d)
}
