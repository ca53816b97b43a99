// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package wire is what the test harness and its agent inside a virtual machine say to
// each other: lines of JSON over a virtio port, one request at a time. A line that is
// none is the rest of a machine that was cut off, and is passed over.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Port is the name of the virtio port.
const Port = "fulmar.vm"

// Chunk is the most bytes of a file in one line, and MaxLine the longest line: a chunk
// or an output in base64, and some.
const (
	Chunk     = 256 << 10
	MaxOutput = 4 << 20 // bytes kept of a command's output, the first ones
	MaxLine   = 4 * MaxOutput
)

// Request asks for one thing: a command, or a part of a file read or written.
type Request struct {
	ID      uint64
	Args    []string      `json:",omitempty"` // the command
	Env     []string      `json:",omitempty"` // beside the agent's own
	Stdin   []byte        `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"` // then it and all its children are killed

	Write  string      `json:",omitempty"` // append Data to this file, or begin it
	Begin  bool        `json:",omitempty"`
	Mode   os.FileMode `json:",omitempty"`
	Data   []byte      `json:",omitempty"`
	Read   string      `json:",omitempty"` // up to Chunk bytes of this file
	Offset int64       `json:",omitempty"`
}

// Reply answers. One with Boot and no ID is the agent's first word after a start.
type Reply struct {
	ID       uint64
	Boot     string  `json:",omitempty"` // the kernel's boot id
	Uptime   float64 `json:",omitempty"` // seconds since the kernel began
	Code     int     // of the command; -1: it was killed
	TimedOut bool    `json:",omitempty"`
	Stdout   []byte  `json:",omitempty"`
	Stderr   []byte  `json:",omitempty"`
	Data     []byte  `json:",omitempty"`
	Error    string  `json:",omitempty"` // it could not be done at all
}

// Serve answers requests until the port fails.
func Serve(ctx context.Context, port io.ReadWriter) error {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	up, _ := os.ReadFile("/proc/uptime")
	hello := Reply{Boot: strings.TrimSpace(string(boot))}
	_, _ = fmt.Sscan(string(up), &hello.Uptime)
	if err := Send(port, hello); err != nil {
		return err
	}
	lines := Lines(port)
	for {
		for lines.Scan() {
			var r Request
			if json.Unmarshal(lines.Bytes(), &r) != nil || r.ID == 0 {
				continue
			}
			if err := Send(port, answer(ctx, &r)); err != nil {
				return err
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
		// The port reads as ended while nobody is at the other end.
		time.Sleep(100 * time.Millisecond)
		lines = Lines(port)
	}
}

// Lines splits a stream into lines of at most MaxLine bytes.
func Lines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), MaxLine)
	return s
}

// Send writes one line. The first newline ends what a machine that was cut off began.
func Send(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(append([]byte{'\n'}, b...), '\n'))
	return err
}

func answer(ctx context.Context, r *Request) (reply Reply) {
	var err error
	switch {
	case r.Write != "":
		err = write(r)
	case r.Read != "":
		reply.Data, err = read(r)
	default:
		reply, err = command(ctx, r)
	}
	reply.ID = r.ID
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}

func write(r *Request) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if r.Begin {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(r.Write, flags, r.Mode)
	if err != nil {
		return err
	}
	_, err = f.Write(r.Data)
	if r.Begin { // whatever the umask is, and if the file was there before
		err = errors.Join(err, f.Chmod(r.Mode))
	}
	return errors.Join(err, f.Close())
}

func read(r *Request) ([]byte, error) {
	f, err := os.Open(r.Read)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, Chunk)
	n, err := f.ReadAt(b, r.Offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// command runs a command in a process group of its own, so that the end of its time is
// the end of its children, too.
func command(ctx context.Context, r *Request) (reply Reply, err error) {
	if len(r.Args) == 0 {
		return reply, errors.New("no command")
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	var stdout, stderr first
	cmd := exec.CommandContext(ctx, r.Args[0], r.Args[1:]...)
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Stdin = bytes.NewReader(r.Stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a daemon that it left may hold its output
	err = cmd.Run()
	reply.Stdout, reply.Stderr = stdout.b, stderr.b
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		reply.Code, reply.TimedOut, err = -1, true, nil
	case errors.As(err, &exit):
		reply.Code, err = exit.ExitCode(), nil
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil
	}
	return reply, err
}

// first keeps the first MaxOutput bytes.
type first struct{ b []byte }

func (f *first) Write(p []byte) (int, error) {
	f.b = append(f.b, p[:min(len(p), MaxOutput-len(f.b))]...)
	return len(p), nil
}
