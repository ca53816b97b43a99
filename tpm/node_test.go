// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"fulmar/tpm"
	"fulmar/tpm/tpmtest"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file that behaves as the kernel's device before a software TPM: one write
// is a command, one read its whole answer, and until there is one a read gives EAGAIN.
type node struct {
	fs.Inode
	chip string // socket; "" for a TPM that never answers

	mu      sync.Mutex
	opening syscall.Errno
	writing syscall.Errno
	wait    time.Duration
	conn    net.Conn
	answer  []byte
	asked   int
	early   int // reads before there was an answer
}

var (
	_ = fs.NodeOpener((*node)(nil))
	_ = fs.NodeReader((*node)(nil))
	_ = fs.NodeWriter((*node)(nil))
	_ = fs.NodeReleaser((*node)(nil))
	_ = fs.NodeGetattrer((*node)(nil))
)

func (d *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opening != 0 {
		return nil, 0, d.opening
	}
	d.answer = nil
	if d.conn == nil && d.chip != "" {
		c, err := net.Dial("unix", d.chip)
		if err != nil {
			return nil, 0, syscall.EIO
		}
		d.conn = c
	}
	return nil, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NONSEEKABLE, 0
}

func (d *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Nlink = 0o600, 1
	return 0
}

func (d *node) Write(_ context.Context, _ fs.FileHandle, cmd []byte, _ int64) (uint32, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writing != 0 {
		return 0, d.writing
	}
	d.asked++
	cmd = bytes.Clone(cmd)
	go func(c net.Conn, wait time.Duration) {
		time.Sleep(wait)
		if c == nil {
			return
		}
		if _, err := c.Write(cmd); err != nil {
			return
		}
		rsp, err := tpmtest.Message(c)
		if err != nil {
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.conn == c {
			d.answer = rsp
		}
	}(d.conn, d.wait)
	return uint32(len(cmd)), 0
}

func (d *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answer == nil {
		d.early++
		return nil, syscall.EAGAIN
	}
	n := copy(dest, d.answer)
	d.answer = nil
	return fuse.ReadResultData(dest[:n]), 0
}

// Release is the kernel's: the file was closed, and an answer that comes late is for
// nobody.
func (d *node) Release(context.Context, fs.FileHandle) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close()
		d.conn = nil
	}
	return 0
}

// mount shows the node as a file until the test ends.
func mount(t *testing.T, d *node) string {
	t.Helper()
	dir := t.TempDir()
	root := &fs.Inode{}
	s, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMount: true, FsName: "tpm", Name: "tpm"},
		OnAdd: func(ctx context.Context) {
			root.AddChild("tpm0", root.NewPersistentInode(ctx, d, fs.StableAttr{Mode: syscall.S_IFREG, Ino: 2}), true)
		},
	})
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no right to mount: ", err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "tpm0")
}

// The path of /dev/tpmrm0 and /dev/tpm0: poll, read, and the errors of the kernel.
func TestNode(t *testing.T) {
	t.Parallel()
	d := &node{chip: tpmtest.Start(t).Sock}
	path := mount(t, d)
	set := func(f func()) {
		d.mu.Lock()
		defer d.mu.Unlock()
		f()
	}
	opens := func(class error) {
		t.Helper()
		_, err := tpm.Open(tpm.Config{Path: path, Timeout: time.Second})
		wants(t, err, class)
	}
	for errno, class := range map[syscall.Errno]error{
		syscall.EBUSY: tpm.ErrBusy, syscall.EACCES: tpm.ErrPermission, syscall.EPERM: tpm.ErrPermission,
		syscall.ENODEV: tpm.ErrNoTPM, syscall.ENXIO: tpm.ErrNoTPM, syscall.EIO: tpm.ErrGone,
	} {
		set(func() { d.opening = errno })
		opens(class)
	}
	set(func() { d.opening = 0 })
	a := open(t, path)
	k := must[*tpm.Key](t)(a.CreateKey(tpm.Signing))
	if err := sign(k); err != nil {
		t.Fatal(err)
	}
	set(func() { d.wait = 30 * time.Millisecond; d.early = 0 })
	if err := sign(k); err != nil {
		t.Errorf("answers that come late: %v", err)
	}
	set(func() {
		if d.early == 0 {
			t.Error("no read came too early")
		}
		d.wait, d.writing = 0, syscall.EBUSY
	})
	wants(t, sign(k), tpm.ErrBusy)
	set(func() { d.writing = syscall.EIO })
	wants(t, sign(k), tpm.ErrGone)
	set(func() { d.writing = 0 })
	if err := sign(k); err != nil {
		t.Error(err)
	}
}

// A node whose TPM never answers: the deadline holds.
func TestNodeHangs(t *testing.T) {
	t.Parallel()
	path, start := mount(t, &node{}), time.Now()
	_, err := tpm.Open(tpm.Config{Path: path, Timeout: 100 * time.Millisecond})
	wants(t, err, tpm.ErrTimeout)
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
}

// What the kernel itself says of a path that is none of a TPM.
func TestWrongPaths(t *testing.T) {
	t.Parallel()
	for path, class := range map[string]error{
		filepath.Join(t.TempDir(), "tpmrm0"):      tpm.ErrNoTPM,
		"unix:" + filepath.Join(t.TempDir(), "s"): tpm.ErrNoTPM,
		"/proc/sys/kernel/ostype":                 tpm.ErrPermission, // for root too
		t.TempDir():                               tpm.ErrGone,       // a folder
		"/dev/null":                               tpm.ErrProtocol,
		"tcp:127.0.0.1:1":                         tpm.ErrGone,
	} {
		a, err := tpm.Open(tpm.Config{Path: path, Timeout: time.Second})
		if wants(t, err, class); err == nil {
			_ = a.Close()
		}
	}
}
