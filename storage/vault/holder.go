// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"fulmar/internal/atomicfile"
)

// KeyBytes is the length of a data key: AES-256.
const KeyBytes = 32

// ErrKeyLost says that a key cannot be had here, now or later. What was encrypted
// with it may still be read with the recovery key.
var ErrKeyLost = errors.New("the key is lost on this board")

// Holder seals a key so that only this board can unseal it.
type Holder interface {
	// Seal gives a blob of at most MaxBlob bytes from which only this holder gets
	// the key (KeyBytes) back.
	Seal(key []byte) ([]byte, error)
	// Unseal gives the key back. The error wraps ErrKeyLost where this holder can
	// never do that (another TPM, a cleared one, another key file); any other error
	// may pass.
	Unseal(blob []byte) ([]byte, error)
	// Kind is a short word for what holds the key ("file", "tpm"), at most 16 bytes.
	// A blob is only given to a holder of the kind that made it.
	Kind() string
}

// KindFile is the kind of a FileHolder.
const KindFile = "file"

// A key file is one PEM block; nothing else fits in this many bytes.
const maxKeyFile = 4096

const (
	keyFileType = "FULMAR SPOOL KEY"
	blobVersion = 1
	nonceBytes  = 12
	tagBytes    = 16
	fileBlob    = 1 + nonceBytes + KeyBytes + tagBytes
)

// FileHolder seals with a key that lies in a file. It keeps a stolen disk secret
// only where that file is on another disk; whoever gives one to Open should warn
// of it.
type FileHolder struct {
	aead cipher.AEAD
	made bool
}

// ErrInsecure says that others may read or write a key file.
var ErrInsecure = errors.New("key file is open to others")

var errKeyFile = errors.New("no fulmar key file")

// OpenKeyFile reads the key file at path and makes one where there is none. A file
// that others can read, a link, or what is no plain file is refused; one with other
// content is moved to path.damaged.
func OpenKeyFile(path string) (*FileHolder, error) {
	h, err := ReadKeyFile(path)
	if errors.Is(err, errKeyFile) {
		if err := os.Rename(path, path+".damaged"); err != nil {
			return nil, fmt.Errorf("set the damaged key file aside: %w", err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return h, err
	}
	key := make([]byte, KeyBytes)
	_, _ = rand.Read(key) // never fails, see crypto/rand
	text := pem.EncodeToMemory(&pem.Block{Type: keyFileType, Bytes: key})
	if err := atomicfile.WriteFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("make key file: %w", err)
	}
	h, err = ReadKeyFile(path)
	if err == nil {
		h.made = true
	}
	return h, err
}

// ReadKeyFile reads a key file and never makes one.
func ReadKeyFile(path string) (*FileHolder, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != keyFileType || len(block.Bytes) != KeyBytes || len(block.Headers) > 0 || len(rest) > 0 {
		return nil, fmt.Errorf("%w: %s is not one PEM block %q of %d bytes", errKeyFile, path, keyFileType, KeyBytes)
	}
	aead, err := newGCM(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return &FileHolder{aead: aead}, nil
}

// readPrivate reads a small file that only its owner, we or root, may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symbolic link; name the file itself", ErrInsecure, path)
	} else if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%w: %s is no plain file", ErrInsecure, path)
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("%w: %s has mode %04o; run chmod 600 on it, and make a new key if others may have read it", ErrInsecure, path, st.Mode&0o7777)
	case int(st.Uid) != os.Geteuid() && st.Uid != 0:
		return nil, fmt.Errorf("%w: %s belongs to user %d; run chown on it", ErrInsecure, path, st.Uid)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read key file %s: %w", path, err)
	}
	return b, nil
}

// Made tells whether OpenKeyFile had to make the file: then no older key can be
// unsealed.
func (h *FileHolder) Made() bool { return h.made }

// Kind is KindFile.
func (h *FileHolder) Kind() string { return KindFile }

// Seal encrypts the key: version, nonce, ciphertext, tag.
func (h *FileHolder) Seal(key []byte) ([]byte, error) {
	if len(key) != KeyBytes {
		return nil, fmt.Errorf("seal a key of %d bytes, wants %d", len(key), KeyBytes)
	}
	b := make([]byte, 1+nonceBytes, fileBlob)
	b[0] = blobVersion
	_, _ = rand.Read(b[1:])
	return h.aead.Seal(b, b[1:], key, b[:1]), nil
}

// Unseal decrypts what Seal gave.
func (h *FileHolder) Unseal(blob []byte) ([]byte, error) {
	if len(blob) != fileBlob || blob[0] != blobVersion {
		return nil, fmt.Errorf("%w: it was not sealed by a key file", ErrKeyLost)
	}
	key, err := h.aead.Open(nil, blob[1:1+nonceBytes], blob[1+nonceBytes:], blob[:1])
	if err != nil {
		return nil, fmt.Errorf("%w: it was sealed with another key file", ErrKeyLost)
	}
	return key, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
