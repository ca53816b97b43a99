// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package device

import (
	"golang.org/x/sys/unix"

	"fulmar/schema"
)

const (
	// MaxFile is the largest file read, in bytes; what is beyond is not seen. The
	// largest here is /proc/stat, whose interrupt line has some KiB.
	MaxFile = 64 << 10

	openFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	firstBuf  = 128 // bytes; a sysfs attribute is mostly shorter than 20
	maxEINTR  = 8   // Go's own signals restart calls, so one retry is rare already
)

// File is one file of the kernel that is read again and again. It never waits
// and, once its buffer has grown to the file's size, never allocates.
type File struct {
	root  Root
	path  string
	attr  bool
	fd    int // -1 closed
	kept  bool
	errno unix.Errno
	buf   []byte
}

// Attr is a sysfs attribute: one read gives it whole.
func (r Root) Attr(p string) *File { return &File{root: r, path: r.Path(p), attr: true, fd: -1} }

// File is a file of /proc: read until its end.
func (r Root) File(p string) *File { return &File{root: r, path: r.Path(p), fd: -1} }

// Read gives the file's bytes as of now; they are valid until the next call. With
// a quality other than good there are none:
//
//   - offline: powered down (EAGAIN, ENXIO) or gone (ENOENT, ENODEV; a file that
//     vanished was opened anew once before this is said)
//   - error: the driver answered with an error (EINVAL, ENODATA, EIO), we may not
//     read it, or it is empty
//
// [File.Errno] then tells the cause.
func (f *File) Read() ([]byte, schema.Quality) {
	fresh := f.fd < 0
	n, errno := f.readOnce()
	if gone(errno) && !fresh {
		// The node was removed and perhaps made again (driver reload, hwmon
		// renumbering): the kept descriptor is of the old one.
		f.Close()
		n, errno = f.readOnce()
	}
	f.errno = errno
	if errno != 0 || !f.kept {
		f.Close()
	}
	switch {
	case errno == 0 && n > 0:
		return f.buf[:n], schema.QualityGood
	case errno == unix.EAGAIN || errno == unix.ENXIO || gone(errno):
		return nil, schema.QualityOffline
	}
	return nil, schema.QualityError
}

// Int reads the file as one whole number in decimal.
func (f *File) Int() (int64, schema.Quality) {
	b, q := f.Read()
	if q != schema.QualityGood {
		return 0, q
	}
	v, ok := ParseInt(TrimSpace(b))
	if !ok {
		return 0, schema.QualityError
	}
	return v, schema.QualityGood
}

// Float is [File.Int] times scale, for the units of the series.
func (f *File) Float(scale float64) (float64, schema.Quality) {
	v, q := f.Int()
	return float64(v) * scale, q
}

// Path tells the file's real path.
func (f *File) Path() string { return f.path }

// Errno is the cause of the last read's quality; 0 where it was good, or where
// the bytes were read and made no sense.
func (f *File) Errno() unix.Errno { return f.errno }

// Close gives the descriptor back. The next Read opens the file again.
func (f *File) Close() {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
	if f.kept {
		f.kept = false
		f.root.kept.Add(-1)
	}
}

// gone tells errors of a node that is no more: ESRCH is /proc's word for it.
func gone(e unix.Errno) bool { return e == unix.ENOENT || e == unix.ENODEV || e == unix.ESRCH }

// readOnce reads the whole file into buf, opening it where it is not open.
func (f *File) readOnce() (int, unix.Errno) {
	if f.fd < 0 {
		if errno := f.open(); errno != 0 {
			return 0, errno
		}
	}
	if f.buf == nil {
		f.buf = make([]byte, firstBuf)
	}
	n := 0
	for {
		m, errno := f.pread(f.buf[n:], int64(n))
		if errno != 0 {
			return 0, errno
		}
		n += m
		full := n == len(f.buf)
		switch {
		case m == 0, f.attr && !full, len(f.buf) >= MaxFile && full:
			return n, 0
		case full:
			f.buf = append(f.buf, make([]byte, len(f.buf))...)
		}
	}
}

func (f *File) open() unix.Errno {
	for range maxEINTR {
		fd, err := unix.Open(f.path, openFlags, 0)
		if err == nil {
			f.fd = fd
			if f.root.kept.Add(1) <= MaxKept {
				f.kept = true
			} else {
				f.root.kept.Add(-1)
			}
			return 0
		}
		if e := errnoOf(err); e != unix.EINTR {
			return e
		}
	}
	return unix.EINTR
}

func (f *File) pread(b []byte, at int64) (int, unix.Errno) {
	for range maxEINTR {
		n, err := unix.Pread(f.fd, b, at)
		if err == unix.ESPIPE { // a pipe has no offset
			n, err = unix.Read(f.fd, b)
		}
		if err == nil {
			return max(n, 0), 0
		}
		if e := errnoOf(err); e != unix.EINTR {
			return 0, e
		}
	}
	return 0, unix.EINTR
}

func errnoOf(err error) unix.Errno {
	if e, ok := err.(unix.Errno); ok { //nolint:errorlint // unix returns the bare type; errors.As would allocate
		return e
	}
	return unix.EIO
}
