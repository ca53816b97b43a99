// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// Uplink stands between the boards of a site and its gateway, and can be cut: what goes
// through it is lost from one moment to the next, as when a cable is pulled.
type Uplink struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// NewUplink opens an uplink to the site's gateway. Boards that enrol after StartFleet are
// sent to it.
func (s *Site) NewUplink() (*Uplink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open uplink: %w", err)
	}
	u := &Uplink{l: l, to: s.MQTT, conns: map[net.Conn]bool{}}
	s.Broker = l.Addr().String()
	u.wg.Go(u.accept)
	return u, nil
}

// Cut ends all connections, and each new one at once, until Heal.
func (u *Uplink) Cut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cut = true
	for c := range u.conns {
		_ = c.Close()
	}
}

// Heal lets boards through again.
func (u *Uplink) Heal() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cut = false
}

// Close ends the uplink.
func (u *Uplink) Close() {
	_ = u.l.Close()
	u.Cut()
	u.wg.Wait()
}

func (u *Uplink) accept() {
	for {
		c, err := u.l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", u.to)
		if err != nil || !u.keep(c, up) {
			_ = c.Close()
			if up != nil {
				_ = up.Close()
			}
			continue
		}
		u.wg.Go(func() { u.copy(c, up) })
		u.wg.Go(func() { u.copy(up, c) })
	}
}

// keep remembers a connection; not while the uplink is cut.
func (u *Uplink) keep(conns ...net.Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cut {
		return false
	}
	for _, c := range conns {
		u.conns[c] = true
	}
	return true
}

// copy carries one direction, and ends both with it.
func (u *Uplink) copy(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	for _, c := range []net.Conn{from, to} {
		_ = c.Close()
		u.mu.Lock()
		delete(u.conns, c)
		u.mu.Unlock()
	}
}
