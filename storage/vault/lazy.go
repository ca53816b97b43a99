// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"fmt"
	"io/fs"
)

// LazyFile is a holder that opens the key file at its path, or makes it, when it is
// asked: a file that cannot be used is then a fault of the spool, which works from memory
// and says so, and not of the start.
type LazyFile string

// Kind is KindFile.
func (f LazyFile) Kind() string { return KindFile }

// Seal is that of the file's [FileHolder].
func (f LazyFile) Seal(key []byte) ([]byte, error) {
	h, err := OpenKeyFile(string(f))
	if err != nil {
		return nil, err
	}
	return h.Seal(key)
}

// Unseal is that of the file's [FileHolder].
func (f LazyFile) Unseal(blob []byte) ([]byte, error) {
	h, err := OpenKeyFile(string(f))
	if err != nil {
		return nil, err
	}
	return h.Unseal(blob)
}

// FormerFile opens what a key file sealed before another holder did. The file is never
// made anew: where it is gone, the error wraps [ErrKeyLost].
type FormerFile string

// Kind is KindFile.
func (f FormerFile) Kind() string { return KindFile }

// Seal seals nothing.
func (f FormerFile) Seal([]byte) ([]byte, error) {
	return nil, fmt.Errorf("key file %s is a former holder: it seals nothing", string(f))
}

// Unseal is that of the file's [FileHolder].
func (f FormerFile) Unseal(blob []byte) ([]byte, error) {
	h, err := ReadKeyFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrKeyLost, err)
	} else if err != nil {
		return nil, err
	}
	return h.Unseal(blob)
}
