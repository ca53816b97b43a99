// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func crcOf(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	if _, err := ReadKeyFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("read without a file: %v", err)
	}
	h, err := OpenKeyFile(path)
	if err != nil || !h.Made() {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	key := bytes.Repeat([]byte{7}, KeyBytes)
	blob, err := h.Seal(key)
	if err != nil || bytes.Contains(blob, key[:8]) {
		t.Fatal(err)
	}
	again, err := OpenKeyFile(path)
	if err != nil || again.Made() {
		t.Fatal(err)
	}
	if got, err := again.Unseal(blob); err != nil || !bytes.Equal(got, key) {
		t.Errorf("unseal: %v", err)
	}
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 1
		if _, err := h.Unseal(bad); !errors.Is(err, ErrKeyLost) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	other, err := OpenKeyFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Unseal(blob); !errors.Is(err, ErrKeyLost) {
		t.Errorf("another key file: %v", err)
	}
	if _, err := h.Seal(key[:16]); err == nil {
		t.Error("a short key was sealed")
	}
}

func TestKeyFileOpenToOthersIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if _, err := OpenKeyFile(path); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{link, fifo, dir} {
		if _, err := OpenKeyFile(p); !errors.Is(err, ErrInsecure) {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeyFile(path); !errors.Is(err, ErrInsecure) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, 4711, 4711)); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeyFile(path); !errors.Is(err, ErrInsecure) {
			t.Errorf("of another user: %v", err)
		}
	}
}

func TestDamagedKeyFileIsSetAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	for _, text := range []string{"", "no key", "-----BEGIN FULMAR SPOOL KEY-----\nAAAA\n-----END FULMAR SPOOL KEY-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKeyFile(path); err == nil {
			t.Errorf("%q was read", text)
		}
		h, err := OpenKeyFile(path)
		if err != nil || !h.Made() {
			t.Fatalf("%q: %v", text, err)
		}
		if b, err := os.ReadFile(path + ".damaged"); err != nil || string(b) != text {
			t.Errorf("%q was not kept: %v", text, err)
		}
	}
}

func TestRecoveryPEM(t *testing.T) {
	t.Parallel()
	r := recovery(t)
	priv, err := r.PEM()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := r.Public().PEM()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseRecoveryKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseRecoveryPublic(pub)
	if err != nil || p.ID() != r.Public().ID() {
		t.Fatal(err)
	}
	wrapped, err := p.wrap(5, []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.unwrap(5, wrapped); err != nil || string(got) != "key" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := k.unwrap(6, wrapped); !errors.Is(err, ErrKeyLost) {
		t.Errorf("a wrapped key was taken under another id: %v", err)
	}
	// Made elsewhere with openssl genpkey -algorithm X25519, openssl pkey -pubout.
	const opensslPriv = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIHcHbQpzGKV9PBbBclGyZkXfTC+H68CZKrF3+6UduSwq\n-----END PRIVATE KEY-----\n"
	const opensslPub = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n-----END PUBLIC KEY-----\n"
	k, err = ParseRecoveryKey([]byte(opensslPriv)) // RFC 7748, 6.1: Alice's
	if err != nil {
		t.Fatal(err)
	}
	p, err = ParseRecoveryPublic([]byte(opensslPub))
	if err != nil || p.ID() != k.Public().ID() {
		t.Errorf("%v", err)
	}
	if _, err := ParseRecoveryKey(pub); !errors.Is(err, ErrRecoveryKey) {
		t.Errorf("the public half as private: %v", err)
	}
	if _, err := ParseRecoveryPublic(priv); !errors.Is(err, ErrRecoveryKey) {
		t.Errorf("the private half on a board: %v", err)
	}
}

func FuzzDecodeRing(f *testing.F) {
	r := &ring{gen: 3, entries: []entry{
		{id: 1, created: 2, kind: "file", blob: []byte("blob")},
		{id: 2, created: 3, recovery: 4, kind: "tpm", blob: make([]byte, MaxBlob), wrapped: make([]byte, 80)},
	}}
	f.Add(r.encode())
	f.Add((&ring{}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		// Past the checksum, too: a fuzzer does not find it by itself.
		for _, in := range [][]byte{b, append(bytes.Clone(b), crcOf(b)...)} {
			r, err := decodeRing(in)
			if err == nil && !bytes.Equal(r.encode(), in) {
				t.Error("what was decoded does not encode to the same bytes")
			}
			if err == nil && len(r.entries) > MaxKeys {
				t.Errorf("%d keys", len(r.entries))
			}
		}
	})
}

func FuzzParseRecovery(f *testing.F) {
	r, err := NewRecoveryKey()
	if err != nil {
		f.Fatal(err)
	}
	priv, _ := r.PEM()
	pub, _ := r.Public().PEM()
	f.Add(priv)
	f.Add(pub)
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseRecoveryKey(b); err == nil && k.Public().ID() == 0 {
			t.Error("a key without an id")
		}
		if p, err := ParseRecoveryPublic(b); err == nil {
			// A public key of low order is refused when it is used, never with a panic.
			_, _ = p.wrap(1, make([]byte, KeyBytes))
		}
	})
}
