// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package memdisk

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Disk is one disk, served as a file. Its methods may be called from any goroutine.
type Disk struct {
	fs.Inode
	server *Server
	name   string

	mu         sync.Mutex
	img        *Image
	log        []Op
	logged     int64 // bytes in log
	recording  bool
	writeErr   syscall.Errno
	readErr    syscall.Errno
	flushDelay time.Duration
	flushes    int
	writes     int
}

var (
	_ = fs.NodeOpener((*Disk)(nil))
	_ = fs.NodeReader((*Disk)(nil))
	_ = fs.NodeWriter((*Disk)(nil))
	_ = fs.NodeFsyncer((*Disk)(nil))
	_ = fs.NodeGetattrer((*Disk)(nil))
	_ = fs.NodeSetattrer((*Disk)(nil))
	_ = fs.NodeAllocater((*Disk)(nil))
)

// Path is the file that is the disk.
func (d *Disk) Path() string { return d.server.dir + "/" + d.name }

// Insert puts another content in; nothing may have the disk open.
func (d *Disk) Insert(img *Image) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.img, d.log, d.logged, d.recording = img, nil, 0, false
}

// Image gives the content as it is now.
func (d *Disk) Image() *Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.img.Clone()
}

// Record begins a new log and gives the content that it begins with.
func (d *Disk) Record() *Image {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log, d.logged, d.recording = nil, 0, true
	return d.img.Clone()
}

// Log gives what happened since Record, and records on. bytes is its size.
func (d *Disk) Log() (log []Op, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log[:len(d.log):len(d.log)], d.logged
}

// Note puts a line into the log.
func (d *Disk) Note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.recording {
		d.log = append(d.log, Op{Note: s})
	}
}

// Fail makes reads and writes fail; zero lets them pass again.
func (d *Disk) Fail(read, write syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readErr, d.writeErr = read, write
}

// DelayFlush makes each flush take that long.
func (d *Disk) DelayFlush(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushDelay = by
}

// Counts tells of writes and flushes since the disk was made.
func (d *Disk) Counts() (writes, flushes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes, d.flushes
}

// Open makes the kernel keep none of the content: it may be exchanged.
func (d *Disk) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

// Getattr tells the size.
func (d *Disk) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	out.Size, out.Mode, out.Nlink = uint64(d.img.Size()), 0o600, 1
	return 0
}

// Setattr changes nothing: a disk keeps its size.
func (d *Disk) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return d.Getattr(ctx, f, out)
}

// Allocate is what a loop device makes of a discard; this disk has none.
func (d *Disk) Allocate(context.Context, fs.FileHandle, uint64, uint64, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}

// Read answers from the image.
func (d *Disk) Read(_ context.Context, _ fs.FileHandle, dst []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readErr != 0 {
		return nil, d.readErr
	}
	return fuse.ReadResultData(dst[:d.img.ReadAt(dst, off)]), 0
}

// Write changes the image.
func (d *Disk) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	if d.writeErr != 0 {
		return 0, d.writeErr
	}
	n := d.img.WriteAt(data, off)
	if n < len(data) {
		return uint32(n), syscall.ENOSPC
	}
	if d.recording {
		d.log = append(d.log, Op{Off: off, Data: append([]byte(nil), data...)})
		d.logged += int64(len(data))
	}
	return uint32(n), 0
}

// Fsync is the flush of the device.
func (d *Disk) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.mu.Lock()
	d.flushes++
	delay, err := d.flushDelay, d.writeErr
	if d.recording && err == 0 && delay == 0 {
		d.log = append(d.log, Op{Flush: true}) // what came before is safe now
	}
	d.mu.Unlock()
	time.Sleep(delay) // writes go on meanwhile
	return err
}
