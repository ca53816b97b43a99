// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package exetest writes programs that a test then runs.
package exetest

import (
	"errors"
	"os"
	"syscall"
)

// Write writes a program, with this mode whatever the umask. No child of this process is
// forked meanwhile: between its fork and its exec it would have the file open for writing,
// and whoever ran the program then would be told "text file busy" (ETXTBSY; golang.org/issue/22315).
func Write(path string, program []byte, mode os.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return errors.Join(os.WriteFile(path, program, mode), os.Chmod(path, mode))
}
