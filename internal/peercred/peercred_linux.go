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
	"unsafe"

	"golang.org/x/sys/unix"
)

// Check lets in this process's own user, root, and the users in also, by their ids. The
// socket's mode says so too, but a folder mounted with the wrong owner would not.
//
// On the calling side it tells whose socket was reached: the kernel gives who listened
// first, which is root where systemd opened the socket.
func Check(conn net.Conn, also ...int) error {
	p, err := Of(conn)
	if err != nil {
		return err
	}
	return allowed(p.UID, append([]int{os.Geteuid()}, also...))
}

// Peer is a process at the other side of a unix socket, as it was when it connected (or,
// on the calling side, when it began to listen). It cannot change that later, nor by
// giving its end to somebody else.
type Peer struct {
	PID, UID, GID int
	// Groups are the supplementary groups of the process; none on a kernel before 4.13,
	// which does not tell.
	Groups []int
}

// maxGroups bounds the groups that are read: the kernel tells none of somebody in more.
// People in large directories are in some hundred.
const maxGroups = 1024

// Of tells who is at the other side.
func Of(conn net.Conn) (Peer, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}, fmt.Errorf("caller on %s is not on a unix socket: its user is not known", conn.LocalAddr().Network())
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("ask who calls: %w", err)
	}
	var cred *syscall.Ucred
	var credErr error
	var groups []int
	if err := raw.Control(func(fd uintptr) {
		if cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); credErr == nil {
			groups = groupsOf(fd)
		}
	}); err != nil {
		return Peer{}, fmt.Errorf("ask who calls: %w", err)
	}
	if credErr != nil {
		return Peer{}, fmt.Errorf("ask who calls: %w", credErr)
	}
	return Peer{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid), Groups: groups}, nil
}

// groupsOf reads SO_PEERGROUPS (socket(7)); none where the kernel does not know it.
func groupsOf(fd uintptr) []int {
	list := make([]uint32, maxGroups)
	size := uint32(len(list) * 4)
	if _, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return nil
	}
	var out []int
	for _, g := range list[:min(int(size)/4, len(list))] {
		out = append(out, int(g))
	}
	return out
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
