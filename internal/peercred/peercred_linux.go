// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package peercred tells who is at the other side of a unix socket.
package peercred

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
)

// Check lets in this process's own user, root, and the users in also, by their ids. The
// socket's mode says so too, but a folder mounted with the wrong owner would not.
//
// On the calling side it tells whose socket was reached: the kernel gives who listened
// first, which is root where systemd opened the socket.
func Check(conn net.Conn, also ...int) error {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("caller on %s is not on a unix socket: its user is not known", conn.LocalAddr().Network())
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return fmt.Errorf("ask who calls: %w", err)
	}
	var cred *syscall.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("ask who calls: %w", err)
	}
	if credErr != nil {
		return fmt.Errorf("ask who calls: %w", credErr)
	}
	return allowed(int(cred.Uid), append([]int{os.Geteuid()}, also...))
}

func allowed(peer int, users []int) error {
	if peer != 0 && !slices.Contains(users, peer) {
		return fmt.Errorf("other side of the socket has user id %d, wants root or one of %v: run fulmard and fulmar-infer as one user, or name fulmard's user to fulmar-infer with --client", peer, users)
	}
	return nil
}

// Dial connects to a socket of our own user or of systemd, nobody else's: who could put
// one into its place would be told what is meant for the other and believed.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := Check(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return conn, nil
}
