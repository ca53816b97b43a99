// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package memdisk

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Server shows disks as files of one folder. Its methods may be called from any
// goroutine.
type Server struct {
	fs.Inode
	dir  string
	fuse *fuse.Server

	mu   sync.Mutex
	next uint64 // inode number of the next file: two files of one number are one file
}

// Serve mounts an empty folder of disks at dir.
func Serve(dir string) (*Server, error) {
	s := &Server{dir: dir, next: 2}
	var err error
	s.fuse, err = fs.Mount(dir, s, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, DisableSplice: true, MaxWrite: 1 << 20, FsName: "memdisk", Name: "memdisk"},
	})
	if err != nil {
		return nil, fmt.Errorf("serve disks at %s: %w", dir, err)
	}
	return s, nil
}

// Add shows another disk and, beside it, a file NAME.notes: each line written to
// that becomes a note in the disk's log before the write returns.
func (s *Server) Add(name string, img *Image) *Disk {
	d := &Disk{server: s, name: name, img: img}
	s.show(name, d)
	s.show(name+".notes", &notes{disk: d})
	return d
}

func (s *Server) show(name string, node fs.InodeEmbedder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	child := s.NewPersistentInode(context.Background(), node, fs.StableAttr{Mode: syscall.S_IFREG, Ino: s.next})
	s.next++
	s.AddChild(name, child, true)
}

// Close ends the service; nothing may use the disks.
func (s *Server) Close() error { return s.fuse.Unmount() }

// notes is the file that turns writes into notes.
type notes struct {
	fs.Inode
	disk *Disk
}

var (
	_ = fs.NodeOpener((*notes)(nil))
	_ = fs.NodeWriter((*notes)(nil))
	_ = fs.NodeGetattrer((*notes)(nil))
)

func (n *notes) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (n *notes) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Nlink = 0o600, 1
	return 0
}

// Setattr changes nothing; opening with O_TRUNC asks for it.
func (n *notes) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.Getattr(ctx, f, out)
}

func (n *notes) Write(_ context.Context, _ fs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			n.disk.Note(line)
		}
	}
	return uint32(len(data)), 0
}
