// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// stopWait is how long a program gets after SIGTERM: its own promise of five
// seconds and some for a loaded machine.
const stopWait = 10 * time.Second

// Proc is one running program.
type Proc struct {
	Name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	out  *tail
}

// start runs a program; its output goes to the log file and the last part of it
// is kept for error messages.
func start(name, program string, log io.Writer, args ...string) (*Proc, error) {
	p := &Proc{Name: name, done: make(chan struct{}), out: &tail{}}
	p.cmd = exec.Command(program, args...)
	w := io.MultiWriter(log, p.out)
	p.cmd.Stdout, p.cmd.Stderr = w, w
	// A test or a person that dies takes its programs along.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Output is the last part of what the program printed.
func (p *Proc) Output() string { return p.out.String() }

// Kill ends the program with SIGKILL, as a power cut of one process would.
func (p *Proc) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop ends the program with SIGTERM and tells how long that took; after
// stopWait it is killed and that is an error.
func (p *Proc) Stop() (time.Duration, error) {
	begin := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			return time.Since(begin), fmt.Errorf("%s ended with: %w\n%s", p.Name, p.err, p.Output())
		}
		return time.Since(begin), nil
	case <-time.After(stopWait):
		p.Kill()
		return time.Since(begin), fmt.Errorf("%s did not end within %v", p.Name, stopWait)
	}
}

// tail keeps the last 16 KiB written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - tailBytes; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}

// openLog opens a program's log file for appending.
func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
