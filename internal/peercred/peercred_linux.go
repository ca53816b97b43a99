// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package peercred tells who calls on a unix socket.
package peercred

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// Check lets in only the same user and root: the socket's mode says so too,
// but a folder mounted with the wrong owner would not.
func Check(conn net.Conn) error {
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
	return allowed(int(cred.Uid), os.Geteuid())
}

func allowed(peer, own int) error {
	if peer != own && peer != 0 {
		return fmt.Errorf("caller has user id %d, wants %d or root: run fulmard and fulmar-infer as one user", peer, own)
	}
	return nil
}
