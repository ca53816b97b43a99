// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sdnotify_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/internal/sdnotify"
)

// manager plays systemd's end of the notify socket.
type manager struct {
	t *testing.T
	c *net.UnixConn
}

func listen(t *testing.T, name string) *manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return &manager{t, c}
}

func (m *manager) next() string {
	m.t.Helper()
	if err := m.c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.c.Read(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b[:n])
}

func (m *manager) want(want string) {
	m.t.Helper()
	if got := m.next(); got != want {
		m.t.Errorf("got %q, want %q", got, want)
	}
}

func fromEnv(t *testing.T) *sdnotify.Notifier {
	t.Helper()
	n, err := sdnotify.FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStates(t *testing.T) {
	for _, kind := range []string{"path", "abstract"} {
		t.Run(kind, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "n")
			if kind == "abstract" {
				name = fmt.Sprintf("@fulmar-test-%d", os.Getpid())
			}
			m := listen(t, name)
			n := fromEnv(t)
			for _, err := range []error{n.Ready(), n.Status("spool\nREADY=0 full"), n.Reloading(), n.Stopping()} {
				if err != nil {
					t.Fatal(err)
				}
			}
			m.want("READY=1")
			m.want("STATUS=spool READY=0 full")
			usec, ok := strings.CutPrefix(m.next(), "RELOADING=1\nMONOTONIC_USEC=")
			if v, err := strconv.ParseInt(usec, 10, 64); !ok || err != nil || v <= 0 {
				t.Errorf("reloading with %q", usec)
			}
			m.want("STOPPING=1")
		})
	}
}

func TestOutsideSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := fromEnv(t)
	if n != nil || n.Ready() != nil || n.Status("x") != nil || n.Reloading() != nil || n.Watchdog() != 0 {
		t.Error("a notifier without a socket does something")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := fromEnv(t).Ready(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the socket does not exist", err)
	}
}

func TestBadEnv(t *testing.T) {
	for _, e := range [][2]string{{"vsock:2:1234", ""}, {"/run/x", "0"}, {"/run/x", "-5"}, {"/run/x", "soon"}, {"/run/x", "99999999999999"}} {
		t.Setenv("NOTIFY_SOCKET", e[0])
		t.Setenv("WATCHDOG_USEC", e[1])
		if n, err := sdnotify.FromEnv(); err == nil {
			t.Errorf("%q taken as %+v", e, n)
		}
	}
}

func TestWatchdog(t *testing.T) {
	m := listen(t, filepath.Join(t.TempDir(), "n"))
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()+1))
	if d := fromEnv(t).Watchdog(); d != 0 {
		t.Errorf("took the watchdog of another process: %v", d)
	}
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	n := fromEnv(t)
	if n.Watchdog() != 20*time.Millisecond {
		t.Fatalf("watchdog of %v, want 20ms", n.Watchdog())
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	var sick atomic.Bool
	go func() {
		done <- n.Run(ctx, func() error {
			if sick.Load() {
				return errors.New("spool does not answer")
			}
			return nil
		}, func(err error) { t.Error(err) })
	}()
	m.want("WATCHDOG=1")
	m.want("WATCHDOG=1")
	sick.Store(true)
	for m.next() == "WATCHDOG=1" { // those under way
	}
	m.want("STATUS=not alive: spool does not answer")
	sick.Store(false)
	for m.next() != "WATCHDOG=1" {
	}
	m.want("STATUS=alive again")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestListeners runs this test program anew as systemd would: with a listening
// socket as descriptor 3 and its own process id in LISTEN_PID.
func TestListeners(t *testing.T) {
	if os.Getenv("FULMAR_TEST_ACTIVATED") != "" {
		activated()
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct{ pid, out string }{
		{"$$", "name worker hello env=\n"},
		{"1", "none env=\n"},
	} {
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=`+c.pid+` exec "$0" -test.run '^TestListeners$'`, os.Args[0])
		cmd.Env = append(os.Environ(), "FULMAR_TEST_ACTIVATED=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=worker")
		cmd.ExtraFiles = []*os.File{f}
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if c.pid == "$$" {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, "hello")
			conn.Close()
		}
		if err := cmd.Wait(); err != nil || out.String() != c.out {
			t.Errorf("LISTEN_PID=%s: %v, printed %q, want %q", c.pid, err, out.String(), c.out)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the child removed systemd's socket: %v", err)
	}
}

// activated is the child's side of TestListeners.
func activated() {
	ls, err := sdnotify.Listeners()
	switch {
	case err != nil:
		fmt.Print("err ", err)
	case len(ls) == 0:
		fmt.Print("none")
	default:
		c, err := ls[0].Accept()
		if err != nil {
			fmt.Print(err)
			break
		}
		b := make([]byte, 16)
		n, _ := c.Read(b)
		fmt.Print("name ", ls[0].Name, " ", string(b[:n]))
		ls[0].Close()
	}
	fmt.Println(" env=" + os.Getenv("LISTEN_FDS") + os.Getenv("LISTEN_PID"))
	os.Exit(0)
}

func TestListenersRefusesNonsense(t *testing.T) {
	for _, n := range []string{"-1", "17", "x"} {
		t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		t.Setenv("LISTEN_FDS", n)
		if ls, err := sdnotify.Listeners(); err == nil {
			t.Errorf("LISTEN_FDS=%s gave %d listeners", n, len(ls))
		}
	}
}
