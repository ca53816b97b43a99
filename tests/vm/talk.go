// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"fulmar/tests/vm/wire"
)

// Cmd is a command for the machine.
type Cmd struct {
	Args    []string
	Env     []string      // NAME=value, beside the agent's
	Stdin   []byte        // at most 1 MiB; bigger things are files
	Timeout time.Duration // 0 is two minutes
}

// Result is how it ended.
type Result struct {
	Code           int // -1: killed
	TimedOut       bool
	Stdout, Stderr []byte // the first 4 MiB each
}

// defaultTimeout is for a command whose caller said nothing, and grace what the answer
// of one may be late.
const (
	defaultTimeout = 2 * time.Minute
	grace          = 30 * time.Second
)

// Run runs a command as root. A code other than 0 is no error.
func (m *Machine) Run(ctx context.Context, c Cmd) (Result, error) {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	r, err := m.talk.ask(ctx, wire.Request{Args: c.Args, Env: c.Env, Stdin: c.Stdin, Timeout: c.Timeout}, c.Timeout+grace)
	return Result{Code: r.Code, TimedOut: r.TimedOut, Stdout: r.Stdout, Stderr: r.Stderr}, err
}

// Shell runs a script (sh -eu) and gives what it printed; any code but 0 is an error
// with the last words.
func (m *Machine) Shell(ctx context.Context, script string) (string, error) {
	return m.ShellFor(ctx, defaultTimeout, script)
}

// ShellFor is [Machine.Shell] with a time of its own.
func (m *Machine) ShellFor(ctx context.Context, limit time.Duration, script string) (string, error) {
	r, err := m.Run(ctx, Cmd{Args: []string{"/bin/sh", "-euc", script}, Timeout: limit})
	switch out := strings.TrimSpace(string(r.Stdout)); {
	case err != nil:
		return out, fmt.Errorf("in the machine: %s: %w", script, err)
	case r.TimedOut:
		return out, fmt.Errorf("in the machine: %s: not done in %v\n%s%s", script, limit, r.Stdout, r.Stderr)
	case r.Code != 0:
		return out, fmt.Errorf("in the machine: %s: exit code %d\n%s%s", script, r.Code, r.Stdout, r.Stderr)
	default:
		return out, nil
	}
}

// Put copies a file of the host into the machine.
func (m *Machine) Put(ctx context.Context, from, to string, mode os.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return m.write(ctx, f, to, mode)
}

// Write makes a file in the machine.
func (m *Machine) Write(ctx context.Context, to string, data []byte, mode os.FileMode) error {
	return m.write(ctx, strings.NewReader(string(data)), to, mode)
}

func (m *Machine) write(ctx context.Context, from io.Reader, to string, mode os.FileMode) error {
	b := make([]byte, wire.Chunk)
	for begin := true; ; begin = false {
		n, err := io.ReadFull(from, b)
		if n > 0 || begin {
			if _, err := m.talk.ask(ctx, wire.Request{Write: to, Begin: begin, Mode: mode, Data: b[:n]}, time.Minute); err != nil {
				return fmt.Errorf("write %s in the machine: %w", to, err)
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// maxRead bounds a file that is read: logs and pictures.
const maxRead = 64 << 20

// Read gives a file of the machine.
func (m *Machine) Read(ctx context.Context, path string) ([]byte, error) {
	var all []byte
	for {
		r, err := m.talk.ask(ctx, wire.Request{Read: path, Offset: int64(len(all))}, time.Minute)
		if err != nil {
			return nil, fmt.Errorf("read %s in the machine: %w", path, err)
		}
		if len(r.Data) == 0 {
			return all, nil
		}
		if all = append(all, r.Data...); len(all) > maxRead {
			return nil, fmt.Errorf("read %s in the machine: over %d bytes", path, maxRead)
		}
	}
}

// talk is the conversation with one start of the machine.
type talk struct {
	c     net.Conn
	hello chan wire.Reply // the agent's first word
	ended chan struct{}

	turn sync.Mutex // one request at a time
	next uint64

	mu   sync.Mutex
	wait map[uint64]chan wire.Reply
}

func newTalk(c net.Conn) *talk {
	t := &talk{c: c, hello: make(chan wire.Reply, 1), ended: make(chan struct{}), wait: map[uint64]chan wire.Reply{}}
	go t.listen()
	return t
}

func (t *talk) listen() {
	defer close(t.ended)
	lines := wire.Lines(t.c)
	for lines.Scan() {
		var r wire.Reply
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue
		}
		if r.ID == 0 && r.Boot != "" {
			select {
			case t.hello <- r:
			default: // the agent was started again; who asked it something gets no answer
			}
			continue
		}
		t.mu.Lock()
		if w := t.wait[r.ID]; w != nil {
			w <- r
			delete(t.wait, r.ID)
		}
		t.mu.Unlock()
	}
}

// ask sends a request and waits for its answer, at most limit.
func (t *talk) ask(ctx context.Context, r wire.Request, limit time.Duration) (wire.Reply, error) {
	t.turn.Lock()
	defer t.turn.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t.next++
	r.ID = t.next
	w := make(chan wire.Reply, 1)
	t.mu.Lock()
	t.wait[r.ID] = w
	t.mu.Unlock()
	_ = t.c.SetWriteDeadline(time.Now().Add(limit))
	if err := wire.Send(t.c, r); err != nil {
		return wire.Reply{}, err
	}
	select {
	case reply := <-w:
		if reply.Error != "" {
			return reply, errors.New(reply.Error)
		}
		return reply, nil
	case <-t.ended:
		return wire.Reply{}, errors.New("the machine is off")
	case <-ctx.Done():
		return wire.Reply{}, fmt.Errorf("no answer: %w", ctx.Err())
	}
}

func (t *talk) close() {
	_ = t.c.Close()
	<-t.ended
}
