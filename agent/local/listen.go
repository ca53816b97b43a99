// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/internal/peercred"
	"fulmar/schema/onboard"
)

// Connections at a time. A person has a view open and gives a command; a few do so.
const (
	maxConns    = 32
	maxUserOnes = 8 // of one user, so that nobody takes all
	maxStrange  = maxConns - maxUserOnes
)

// mode lets in the board's user and its group; who of them may do what is said by roles.
const mode = 0o660

// listen opens the socket at path in place of one that a dead process left. What is there
// and is no socket stays: a link is not followed.
func listen(path string) (net.Listener, error) {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there and is no socket (%v); remove it", path, st.Mode())
	default: // the spool's lock says that no other fulmard lives
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := open(path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// open sets the mode of the socket at path and of nothing else that came into its place.
func open(path string) error {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is no socket any more: somebody else writes into its folder", path)
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), mode)
}

// door lets connections in, within bounds, and knows who is behind each.
type door struct {
	net.Listener
	log *refusals

	mu  sync.Mutex
	all int
	of  map[int]int // by user id
}

func newDoor(l net.Listener, log *refusals) *door {
	return &door{Listener: l, log: log, of: map[int]int{}}
}

// guest is one connection.
type guest struct {
	net.Conn
	peer peercred.Peer
	once sync.Once
	left func()
}

func (g *guest) Close() error {
	g.once.Do(g.left)
	return g.Conn.Close()
}

// Accept gives the next connection that is within the bounds; the others are told.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, err := peercred.Of(c)
		if err != nil {
			d.log.say(context.Background(), "local connection refused", "why", err.Error())
			_ = c.Close()
			continue
		}
		if why := d.enter(peer.UID); why != "" {
			d.log.say(context.Background(), "local connection refused", "uid", peer.UID, "pid", peer.PID, "why", why)
			turnAway(c, why)
			continue
		}
		return &guest{Conn: c, peer: peer, left: func() { d.leave(peer.UID) }}, nil
	}
}

// enter counts a connection in, or says why not. Root always has room beside the others.
func (d *door) enter(uid int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.of[uid] >= maxUserOnes:
		return fmt.Sprintf("user id %d has %d connections to this board open, which is the most", uid, maxUserOnes)
	case uid != 0 && d.all-d.of[0] >= maxStrange:
		return fmt.Sprintf("%d connections to this board are open, which is the most", maxStrange)
	}
	d.all++
	d.of[uid]++
	return ""
}

func (d *door) leave(uid int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.of[uid]--; d.of[uid] == 0 {
		delete(d.of, uid)
	}
}

// count tells how many are open.
func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all
}

// turnAway answers without reading: a short text fits the socket's buffer.
func turnAway(c net.Conn, why string) {
	body, _ := json.Marshal(onboard.Problem{Code: onboard.TooMany, Text: why, Do: "close other views of this board, or try again"})
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_ = c.Close()
}
