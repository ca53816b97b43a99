// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package nvidia

import (
	"os"
	"syscall"
	"unsafe"
)

// ioctlFlags reads or sets the flags of a file.
func ioctlFlags(f *os.File, request uintptr, flags uint32) (uint32, error) {
	// The kernel's type is a long in the number of the request and an int in what it reads.
	v := uint64(flags)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&v))); errno != 0 {
		return 0, errno
	}
	return uint32(v), nil
}

// forget has the kernel read a file from its device again.
func forget(f *os.File) {
	const dontNeed = 4                                                              // POSIX_FADV_DONTNEED
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0) // a hint: without it the page cache answers
}
