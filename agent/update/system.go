// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"context"
	"net"
	"os"
	"sync/atomic"
	"time"

	"fulmar/ota/install/rootfs"
	"fulmar/ota/install/rootfs/wire"
)

// versionWait is how long the helper may take for the version: it is asked also where a
// person or the fleet waits.
const versionWait = 10 * time.Second

// system is the component rootfs where fulmar-rootfs can be asked.
type system struct {
	*rootfs.Rootfs
	version atomic.Pointer[string] // that runs, once it is known
}

// openSystem gives nil where no fulmar-rootfs is: its socket is there only where a person has
// enabled it.
func openSystem(socket string) *system {
	socket = cmp.Or(socket, wire.Socket)
	if fi, err := os.Stat(socket); err != nil || fi.Mode()&os.ModeSocket == 0 {
		return nil
	}
	return &system{Rootfs: &rootfs.Rootfs{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// Running implements [ota.Installer]. What runs stays the same until the machine starts
// anew, and each question starts a program as root: it is asked until it is known.
func (s *system) Running(ctx context.Context) (string, error) {
	if v := s.version.Load(); v != nil {
		return *v, nil
	}
	ctx, cancel := context.WithTimeout(ctx, versionWait)
	defer cancel()
	v, err := s.Rootfs.Running(ctx)
	if err == nil && v != "" {
		s.version.Store(&v)
	}
	return v, err
}
