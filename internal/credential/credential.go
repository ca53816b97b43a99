// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package credential reads secrets from files that our user may not be allowed to read:
// then from what systemd handed over under the file's name (LoadCredential=, systemd 247
// and newer). So the same config works with a file of our group and with one of root.
package credential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxBytes bounds a secret: a folder of logs mistaken for one must not fill memory.
const maxBytes = 64 << 10

// ReadFile reads the file, or if it is not there or not ours to read, the credential of
// its base name. A credential of white space alone is none: systemd before 250 knows no
// other word for a file that is missing. The error is that of the file.
func ReadFile(path string) ([]byte, error) {
	b, err := read(path)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return b, err
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, err
	}
	if c, cerr := read(filepath.Join(dir, filepath.Base(path))); cerr == nil && len(bytes.TrimSpace(c)) > 0 {
		return c, nil
	}
	return nil, err
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && len(b) > maxBytes {
		err = fmt.Errorf("%s is over %d bytes", path, maxBytes)
	}
	return b, err
}
