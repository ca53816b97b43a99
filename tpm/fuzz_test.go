// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"bytes"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"testing"

	"fulmar/tpm/attest"

	"github.com/google/go-tpm/tpm2"
)

// What comes from a disk, a network or the maker's part of a chip: read without a TPM,
// refused as damaged or read into something that is written as it was.
func FuzzRead(f *testing.F) {
	key, err := asn1.Marshal(tss2Key{oidLoadable, true, SRKHandle, tpm2.Marshal(tpm2.New2B(attest.KeyTemplate(true))), []byte{0, 1, 2}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: key}))
	f.Add(blob{pcrs: 3, fields: [blobFields][]byte{{1}, {2, 3}, nil, nil, {4}}}.marshal())
	f.Add([]byte{0x30, 3, 2, 1, 1, 0x30, 0, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := new(TPM).ParseKey(b); err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		if s, err := parseBlob(b); err == nil && !bytes.Equal(s.marshal(), b) {
			t.Error("a blob in two forms")
		}
		all := bytes.Join(split(b), nil)
		if !bytes.HasPrefix(b, all) {
			t.Error("certificates from nowhere")
		}
		if _, err := new(TPM).Import(&attest.Wrapped{Public: b, Seed: make([]byte, maxWrapped+1)}); !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
}
