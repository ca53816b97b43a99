// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package secret makes what lets people and programs in, and what is kept of it.
package secret

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"hash/crc32"
	"math/big"
	"strings"
)

// Typed gives 128 bits as 26 characters of lower-case base32, to be typed.
func Typed() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// Long gives 256 bits in hex.
func Long() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Hash is what is kept of a secret that is random and long: its SHA-256.
func Hash(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// ID names what is kept under a hash without giving it away: 64 of its bits.
func ID(hash []byte) string { return hex.EncodeToString(hash[:8]) }

// The form of a token: fk1_, 43 characters of base62 (256 bits) and 6 of the CRC-32 of
// all before them, so that scanners of sources know one without asking. Tokens made
// before that have 64 hex digits after the prefix.
const (
	tokenPrefix = "fk1_"
	tokenBody   = 43
	tokenSum    = 6
	base62      = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	oldToken    = len(tokenPrefix) + 64
)

func digits62(n *big.Int, width int) string {
	out, mod, base := make([]byte, width), new(big.Int), big.NewInt(62)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, mod)
		out[i] = base62[mod.Int64()]
	}
	return string(out)
}

// NewToken makes a token.
func NewToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	s := tokenPrefix + digits62(new(big.Int).SetBytes(b[:]), tokenBody)
	return s + tokenCheck(s)
}

func tokenCheck(s string) string {
	return digits62(new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(s)))), tokenSum)
}

// WellFormed tells whether something can be a token, without asking whether it is one.
func WellFormed(s string) bool {
	switch {
	case !strings.HasPrefix(s, tokenPrefix):
		return false
	case len(s) == len(tokenPrefix)+tokenBody+tokenSum:
		at := len(s) - tokenSum
		return s[at:] == tokenCheck(s[:at])
	}
	return len(s) == oldToken && strings.Trim(s[len(tokenPrefix):], "0123456789abcdef") == ""
}
