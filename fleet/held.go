// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"fulmar/internal/atomicfile"
	"fulmar/tpm"
)

// maxTPMKey bounds a key file in bytes: a TSS2 PEM of a P-256 key has 400.
const maxTPMKey = 8 << 10

// tpmKey is a key in the server's TPM, and the TPM.
type tpmKey struct {
	*tpm.Key
	chip *tpm.TPM
}

// Close lets the TPM go.
func (k *tpmKey) Close() error { return k.chip.Close() }

// tpmReference takes FILE[,DEVICE] apart. The device is /dev/tpmrm0 where none is named.
func tpmReference(rest string) (file, device string) {
	file, device, _ = strings.Cut(rest, ",")
	return file, device
}

// OpenTPMKey opens a key in the server's TPM, for references tpm:FILE[,DEVICE] of
// package trust: FILE is what [MakeTPMKey] wrote, DEVICE as in tpm.Config.
func OpenTPMKey(rest string) (crypto.Signer, error) {
	file, device := tpmReference(rest)
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxTPMKey {
		return nil, fmt.Errorf("%s has %d bytes, a key of a TPM at most %d", file, st.Size(), maxTPMKey)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	chip, err := tpm.Open(tpm.Config{Path: device})
	if err != nil {
		return nil, err
	}
	key, err := chip.ParseKey(text)
	if err != nil {
		return nil, errors.Join(err, chip.Close())
	}
	return &tpmKey{Key: key, chip: chip}, nil
}

// MakeTPMKey makes a signing key in the server's TPM and writes the file that names it,
// which is of no use on another machine. It never writes over one.
func MakeTPMKey(rest string) error {
	file, device := tpmReference(rest)
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make key in the TPM: %s is there already; a key is never written over", file)
	}
	chip, err := tpm.Open(tpm.Config{Path: device})
	if err != nil {
		return fmt.Errorf("make key in the TPM: %w", err)
	}
	defer chip.Close() //nolint:errcheck // the key is written or it is not
	key, err := chip.CreateKey(tpm.Signing)
	if err != nil {
		return fmt.Errorf("make key in the TPM: %w", err)
	}
	text, err := key.PEM()
	if err != nil {
		return fmt.Errorf("make key in the TPM: %w", err)
	}
	return atomicfile.WriteFile(file, text, 0o600)
}
