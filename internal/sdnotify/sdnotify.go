// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package sdnotify speaks with systemd: a service tells that it is ready, what it
// does and that it is alive, and takes over sockets that were opened for it. It is
// the protocol of sd_notify(3) and sd_listen_fds(3) without their library.
//
// Outside systemd all of it does nothing.
package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxStatus   = 256             // bytes of a status line; systemctl shows one line
	sendTimeout = 2 * time.Second // systemd that takes no datagram for so long is not helped by waiting
	firstFD     = 3               // SD_LISTEN_FDS_START
	maxFDs      = 16              // sockets taken over; fulmar's units have one or two
)

// Notifier sends states to systemd. A nil Notifier, which [FromEnv] gives outside
// systemd, sends nothing and has no watchdog. Safe for concurrent use.
type Notifier struct {
	addr     net.UnixAddr
	watchdog time.Duration
}

// FromEnv reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. It gives nil, nil
// where there is no socket, and an error where there is one of a kind we cannot
// use (vsock).
func FromEnv() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	if path[0] != '/' && path[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET %q is neither a path nor an abstract socket", path)
	}
	n := &Notifier{addr: net.UnixAddr{Name: path, Net: "unixgram"}}
	if s := os.Getenv("WATCHDOG_USEC"); s != "" && forUs("WATCHDOG_PID") {
		us, err := strconv.ParseInt(s, 10, 64)
		if err != nil || us <= 0 || us > int64(24*time.Hour/time.Microsecond) {
			return nil, fmt.Errorf("WATCHDOG_USEC %q is no span of up to a day", s)
		}
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n, nil
}

// forUs tells whether the variable is unset or our process id: variables are
// inherited by children that they were not meant for.
func forUs(env string) bool {
	s := os.Getenv(env)
	return s == "" || s == strconv.Itoa(os.Getpid())
}

// Ready tells that the start, or a reload, is done.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Stopping tells that the service has begun to stop.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Reloading tells that the config is being read anew; [Notifier.Ready] ends it.
func (n *Notifier) Reloading() error {
	if n == nil {
		return nil
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("read CLOCK_MONOTONIC: %w", err)
	}
	return n.send("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(ts.Nano()/1000, 10))
}

// Status sets the line that systemctl status shows. Line ends become blanks: each
// line of a datagram is an assignment of its own.
func (n *Notifier) Status(line string) error {
	line = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, line)
	if len(line) > maxStatus {
		line = strings.ToValidUTF8(line[:maxStatus], "")
	}
	return n.send("STATUS=" + line)
}

// Watchdog is the time within which systemd wants a sign of life; 0 means that it
// wants none.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Run gives signs of life at half the watchdog's interval while alive says nil,
// until ctx ends. With an error from alive no sign is given and the error becomes
// the status line; if it lasts, systemd restarts the service. Without a watchdog
// Run just waits for ctx. Datagrams that cannot be sent are given to lost, which
// may be nil.
func (n *Notifier) Run(ctx context.Context, alive func() error, lost func(error)) error {
	every := n.Watchdog() / 2
	if every <= 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(every)
	defer t.Stop()
	sick := false
	for {
		var err error
		if cause := alive(); cause != nil {
			sick = true
			err = n.Status("not alive: " + cause.Error())
		} else {
			err = n.send("WATCHDOG=1")
			if sick && err == nil {
				sick = false
				err = n.Status("alive again")
			}
		}
		if err != nil && lost != nil {
			lost(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (n *Notifier) send(state string) error {
	if n == nil {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &n.addr)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// Listener is a socket that systemd opened for us, with its FileDescriptorName.
type Listener struct {
	Name string
	net.Listener
}

// Listeners takes over the stream sockets of socket activation (LISTEN_FDS) and
// clears the variables, so that children do not take them too. Where none were
// passed, or not to this process, it gives none. On an error all are closed.
func Listeners() ([]Listener, error) {
	count, pid, names := os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDNAMES")
	for _, k := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(k); err != nil {
			return nil, fmt.Errorf("clear %s: %w", k, err)
		}
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxFDs {
		return nil, fmt.Errorf("LISTEN_FDS %q: wants 0 to %d sockets", count, maxFDs)
	}
	var ls []Listener
	var errs []error
	for i := range n {
		name, rest, _ := strings.Cut(names, ":")
		names = rest
		l, err := adopt(firstFD+i, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ls = append(ls, l)
	}
	if len(errs) > 0 {
		for _, l := range ls {
			errs = append(errs, l.Close())
		}
		return nil, errors.Join(errs...)
	}
	return ls, nil
}

func adopt(fd int, name string) (Listener, error) {
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // FileListener works on a copy
	l, err := net.FileListener(f)
	if err != nil {
		return Listener{}, fmt.Errorf("take over socket %d (%s): %w", fd, name, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path belongs to systemd
	}
	return Listener{name, l}, nil
}
