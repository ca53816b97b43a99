// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpmtest

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Chip is a running software TPM.
type Chip struct {
	Dir  string // its state, the only thing that outlives Kill
	Sock string

	mu   sync.Mutex // Kill is also called by who stands between
	cmd  *exec.Cmd
	done chan struct{}
}

// Start runs a new TPM until the test ends. Where swtpm is missing the test is
// skipped, under CI=true it fails.
func Start(tb testing.TB) *Chip {
	tb.Helper()
	c := stopped(tb)
	c.Run(tb)
	return c
}

func stopped(tb testing.TB) *Chip {
	tb.Helper()
	Need(tb, "swtpm")
	dir, err := os.MkdirTemp("/tmp", "swtpm") // a socket's path has at most 108 bytes
	if err != nil {
		tb.Fatal(err)
	}
	c := &Chip{Dir: dir, Sock: filepath.Join(dir, "s")}
	tb.Cleanup(func() { c.Kill(); _ = os.RemoveAll(dir) })
	return c
}

// Need skips without a program, or fails under CI=true.
func Need(tb testing.TB, program string) {
	tb.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("%s is missing: apt-get install swtpm swtpm-tools tpm2-tools", program)
		}
		tb.Skipf("%s is missing: apt-get install swtpm swtpm-tools tpm2-tools", program)
	}
}

// Path is what tpm.Config wants.
func (c *Chip) Path() string { return "unix:" + c.Sock }

// Run starts it on its state, after Kill.
func (c *Chip) Run(tb testing.TB) {
	tb.Helper()
	_ = os.Remove(c.Sock)
	cmd, done := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+c.Dir,
		"--server", "type=unixio,path="+c.Sock+",mode=0600", "--ctrl", "type=unixio,path="+c.Sock+".ctrl,mode=0600",
		"--flags", "not-need-init,startup-clear"), make(chan struct{})
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(done) }()
	c.mu.Lock()
	c.cmd, c.done = cmd, done
	c.mu.Unlock()
	for range 2000 {
		if n, err := net.Dial("unix", c.Sock); err == nil {
			_ = n.Close()
			return
		}
		select {
		case <-done:
			tb.Fatal("swtpm ended at once")
		case <-time.After(5 * time.Millisecond):
		}
	}
	tb.Fatal("swtpm does not answer")
}

// Kill ends it as a power cut does.
func (c *Chip) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd != nil {
		_ = c.cmd.Process.Signal(syscall.SIGKILL)
		<-c.done
		c.cmd = nil
	}
}

// Proxy stands before a Chip. Its fields may be set before the first command.
type Proxy struct {
	// Answer, if not nil, sees each command and may answer it in the chip's place
	// (nil: the chip answers), wait, or cut the connection (false).
	Answer func(cmd []byte) ([]byte, bool)
	// Change, if not nil, replaces the chip's answer.
	Change func(cmd, rsp []byte) []byte

	mu    sync.Mutex
	seen  []byte
	conns []net.Conn
	sock  string
}

// Between starts a proxy before c until the test ends.
func Between(tb testing.TB, c *Chip) *Proxy {
	tb.Helper()
	dir, err := os.MkdirTemp("/tmp", "tpmproxy")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{sock: filepath.Join(dir, "p")}
	l, err := net.Listen("unix", p.sock)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close(); _ = os.RemoveAll(dir) })
	go func() {
		for {
			n, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(n, c.Sock)
		}
	}()
	return p
}

// Path is what tpm.Config wants.
func (p *Proxy) Path() string { return "unix:" + p.sock }

// Seen is every byte that went over the bus, both ways.
func (p *Proxy) Seen() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]byte(nil), p.seen...)
}

// Drop breaks every connection, so that the chip can be talked to; a TPM that is open
// connects again at its next operation but one.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.conns {
		_ = n.Close()
	}
	p.conns = nil
}

func (p *Proxy) serve(n net.Conn, sock string) {
	defer func() { _ = n.Close() }()
	chip, err := net.Dial("unix", sock)
	if err != nil {
		return
	}
	defer func() { _ = chip.Close() }()
	p.mu.Lock()
	p.conns = append(p.conns, n, chip)
	p.mu.Unlock()
	for {
		cmd, err := Message(n)
		if err != nil {
			return
		}
		var rsp []byte
		if p.Answer != nil {
			var on bool
			if rsp, on = p.Answer(cmd); !on {
				return
			}
		}
		if rsp == nil {
			if _, err = chip.Write(cmd); err != nil {
				return
			}
			if rsp, err = Message(chip); err != nil {
				return
			}
		}
		if p.Change != nil {
			rsp = p.Change(cmd, rsp)
		}
		p.mu.Lock()
		p.seen = append(append(p.seen, cmd...), rsp...)
		p.mu.Unlock()
		if _, err = n.Write(rsp); err != nil || len(rsp) < 10 || int(binary.BigEndian.Uint32(rsp[2:])) != len(rsp) {
			return // a cut answer ends the connection
		}
	}
}

// Message reads one command or answer.
func Message(r io.Reader) ([]byte, error) {
	b := make([]byte, 10, 4096)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(b[2:])
	if n < 10 || n > 4096 {
		return nil, io.ErrUnexpectedEOF
	}
	b = b[:n]
	_, err := io.ReadFull(r, b[10:])
	return b, err
}

// Code is an answer with nothing but a response code.
func Code(rc uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, 10}, rc)
}
