// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package updates

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fulmar/internal/exetest"
	"fulmar/ota/slot"
)

// nobody is who the agent runs as where the test may choose.
const nobody = 65534

// build makes a program; version goes into its main package's variable of that name.
func build(t *testing.T, pkg, out, variable, value string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main."+variable+"="+value, "-o", out, pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, b)
	}
}

// open is a folder that another user can reach.
func open(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fulmar-slots-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// give makes all of a folder nobody's, if this is root.
func give(t *testing.T, paths ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(p, nobody, nobody))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// command is a call of the launcher as the agent's user.
func command(launcher string, args ...string) *exec.Cmd {
	cmd := exec.Command(launcher, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

// pack makes a package's folder with this program as the agent.
func pack(t *testing.T, dir, version, program string) string {
	t.Helper()
	dir = filepath.Join(dir, "seed-"+version)
	b, err := os.ReadFile(program)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = exetest.Write(filepath.Join(dir, slot.Agent), b, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "release"), []byte(version+"\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// unit does what systemd does with fulmard.service: starts it, waits until it is ready,
// kills it if that or a sign of life does not come, starts it again.
type unit struct {
	t        *testing.T
	args     []string // of the launcher
	launcher string
	socket   string
	log      *os.File

	mu    sync.Mutex
	pid   int
	ready bool
	heard time.Time
	stop  bool
	ended chan struct{}
}

const (
	startLimit = 20 * time.Second // to be ready
	hangLimit  = 2 * time.Second  // of programs that never are
	watchdog   = 4 * time.Second
	restart    = 100 * time.Millisecond
)

func startUnit(t *testing.T, dir, launcher string, args ...string) *unit {
	t.Helper()
	u := &unit{t: t, launcher: launcher, args: args, socket: filepath.Join(dir, "notify"), ended: make(chan struct{})}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: u.socket, Net: "unixgram"})
	if err == nil {
		err = os.Chmod(u.socket, 0o777)
	}
	if err == nil {
		u.log, err = os.Create(filepath.Join(dir, "agent.log"))
	}
	if err != nil {
		t.Fatal(err)
	}
	go u.listen(conn)
	go u.keep()
	t.Cleanup(func() {
		u.mu.Lock()
		u.stop = true
		u.mu.Unlock()
		u.kill(syscall.SIGTERM)
		<-u.ended
		_ = conn.Close()
		if t.Failed() {
			b, _ := os.ReadFile(u.log.Name())
			t.Logf("%s", b[max(0, len(b)-6000):])
		}
	})
	return u
}

func (u *unit) listen(conn *net.UnixConn) {
	b := make([]byte, 4096)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return
		}
		u.mu.Lock()
		u.ready = u.ready || bytes.Contains(b[:n], []byte("READY=1"))
		u.heard = time.Now()
		u.mu.Unlock()
	}
}

func (u *unit) keep() {
	defer close(u.ended)
	for {
		u.mu.Lock()
		if u.stop {
			u.mu.Unlock()
			return
		}
		cmd := command(u.launcher, u.args...)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+u.socket, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog/time.Microsecond))
		cmd.Stdout, cmd.Stderr = u.log, u.log
		u.ready, u.heard = false, time.Now()
		err := cmd.Start()
		if err == nil {
			u.pid = cmd.Process.Pid
		}
		u.mu.Unlock()
		if err != nil {
			u.t.Error(err)
			return
		}
		done := make(chan struct{})
		go u.watch(done)
		_ = cmd.Wait()
		close(done)
		time.Sleep(restart)
	}
}

// watch kills a process that is not ready or gives no sign of life in time.
func (u *unit) watch(done chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(50 * time.Millisecond):
		}
		u.mu.Lock()
		limit := watchdog
		if !u.ready {
			limit = startLimit
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", u.pid)); err == nil && strings.Contains(exe, "~hangs") {
				limit = hangLimit // systemd's 90 s in short
			}
		}
		late := time.Since(u.heard) > limit
		u.mu.Unlock()
		if late {
			u.kill(syscall.SIGABRT)
		}
	}
}

func (u *unit) kill(sig syscall.Signal) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pid != 0 {
		_ = syscall.Kill(u.pid, sig)
	}
}

// runs waits until a ready agent runs out of a slot of that version.
func (u *unit) runs(version string, within time.Duration) time.Duration {
	u.t.Helper()
	begin := time.Now()
	exe := ""
	for time.Since(begin) < within {
		u.mu.Lock()
		exe, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", u.pid))
		ready := u.ready
		u.mu.Unlock()
		// A slot is called by the versions of its parts where they differ: 2.0+worker.1.0-HASH.
		if id := filepath.Base(filepath.Dir(exe)); ready && (strings.HasPrefix(id, version+"-") || strings.HasPrefix(id, version+"+")) {
			return time.Since(begin)
		}
		time.Sleep(20 * time.Millisecond)
	}
	u.t.Fatalf("after %v it runs %s, wants version %s", within, exe, version)
	return 0
}
