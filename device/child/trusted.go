// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package child

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Trusted checks that nobody but root and fulmard's user can change a file, or put another
// in its place. It gives the file's own path, without links.
func Trusted(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(real); err != nil || !st.Mode().IsRegular() {
		return "", errors.Join(fmt.Errorf("%s: is no file", path), err)
	}
	for _, p := range []string{real, filepath.Dir(path)} {
		for ; ; p = filepath.Dir(p) {
			if err := ours(p); err != nil {
				return "", err
			}
			if p == "/" || p == "." {
				break
			}
		}
	}
	return real, nil
}

func ours(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("%s: whose it is cannot be read", path)
	case sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("%s: belongs to user %d; it has to belong to root or to fulmard's user", path, sys.Uid)
	case st.IsDir() && st.Mode()&os.ModeSticky != 0: // what is ours in it, others cannot replace
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s: others may write it (%v); chmod go-w it", path, st.Mode().Perm())
	}
	return nil
}
