// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"fulmar/trust"
)

const (
	keyFile = "audit.key" // PKCS #8, where the key is a file
	refFile = "audit.ref" // the key's reference, where it is not: exec:... or tpm:...
	maxRef  = 4 << 10     // bytes
)

// Reference names the holder of the key whose folder is dir.
func Reference(dir string) (string, error) {
	f, err := os.Open(filepath.Join(dir, refFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "file:" + filepath.Join(dir, keyFile), nil
	}
	if err != nil {
		return "", fmt.Errorf("open key of the audit log: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxRef))
	if err != nil {
		return "", fmt.Errorf("open key of the audit log: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// OpenKey opens the key that signs heads, or makes one in a file of dir where there is
// none. tpm opens one in a TPM and may be nil, see [trust.OpenSigner].
func OpenKey(dir string, tpm func(rest string) (crypto.Signer, error)) (*trust.Signer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the audit log's key: %w", err)
	}
	ref, err := Reference(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, keyFile)
	if _, err := os.Lstat(path); ref == "file:"+path && errors.Is(err, fs.ErrNotExist) {
		return trust.NewKeyFile(path, trust.Ed25519)
	}
	key, err := trust.OpenSigner(ref, tpm)
	if err != nil {
		return nil, fmt.Errorf("key of the audit log: %w", err)
	}
	return key, nil
}
