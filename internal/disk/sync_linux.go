// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"errors"
	"os"
	"syscall"
)

// datasync makes the content durable without the file's times. It is of syscall and not of
// x/sys: the launcher links this package, and the standard library alone.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
