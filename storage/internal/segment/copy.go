// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// maxCopy bounds the file that OpenCopy takes into memory: what a segment of the
	// largest size may grow to.
	maxCopy = 2*256<<20 + headroom
	// copyChunk is read at once; where that fails, page by page.
	copyChunk = 64 << 10
)

// OpenCopy opens a segment of a spool that is not ours. It reads the file once,
// into memory, and goes on with the copy: nothing is locked, written or mapped, and
// what the disk does not give (see Unread) reads as zeros, which no checksum takes
// for a record. Where the key is not there, Locked says why, and Walk tells each
// record as unsound.
func OpenCopy(path string, o Options) (*DB, error) {
	src, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() == 0 || fi.Size() > maxCopy {
		return nil, fmt.Errorf("open segment %s: %w: empty, too large or no plain file", path, ErrDamaged)
	}
	fd, err := unix.MemfdCreate("segment", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open segment %s: memory for a copy: %w", path, err)
	}
	mem := os.NewFile(uintptr(fd), path)
	unread, err := copySparse(mem, src, fi.Size())
	if err != nil {
		_ = mem.Close()
		return nil, fmt.Errorf("open segment %s: copy it to memory: %w", path, err)
	}
	d, err := open(path, o, true, mem)
	if err != nil {
		return nil, err
	}
	d.Unread = unread
	return d.check(path, o, true)
}

// copySparse copies size bytes and leaves out what is zero. Bytes that cannot be
// read are counted.
func copySparse(dst *os.File, src io.ReaderAt, size int64) (unread int64, err error) {
	if err := dst.Truncate(size); err != nil {
		return 0, err
	}
	buf, zero := make([]byte, copyChunk), make([]byte, copyChunk)
	put := func(b []byte, at int64) error {
		if bytes.Equal(b, zero[:len(b)]) {
			return nil
		}
		_, err := dst.WriteAt(b, at)
		return err
	}
	for at := int64(0); at < size; at += copyChunk {
		b := buf[:min(copyChunk, size-at)]
		if _, err := src.ReadAt(b, at); err == nil {
			if err := put(b, at); err != nil {
				return 0, err
			}
			continue
		}
		for off := 0; off < len(b); off += pageSize {
			page := b[off:min(off+pageSize, len(b))]
			n, err := src.ReadAt(page, at+int64(off))
			if err != nil && !errors.Is(err, io.EOF) {
				n = 0
			}
			unread += int64(len(page) - n)
			if err := put(page[:n], at+int64(off)); err != nil {
				return 0, err
			}
		}
	}
	return unread, nil
}
