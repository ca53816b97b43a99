// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package totp makes and checks the codes that authenticators show: RFC 6238 with what
// all of them take without asking, SHA-1, 6 digits and 30 seconds.
package totp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what RFC 6238 and every authenticator use; HMAC needs no collision resistance
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"time"
)

const (
	// Step is how long a code is shown.
	Step   = 30 * time.Second
	digits = 6
	// keyLen is in bytes: RFC 4226 section 4 recommends 160 bits.
	keyLen = 20
	// drift is how many steps a phone's clock may be ahead or behind.
	drift = 1
)

// hotp is RFC 4226 section 5.3 with the given count of digits, at most 8.
func hotp(key []byte, counter uint64, digits int) string {
	var c [8]byte
	binary.BigEndian.PutUint64(c[:], counter)
	h := hmac.New(sha1.New, key)
	h.Write(c[:])
	sum := h.Sum(nil)
	off := sum[len(sum)-1] & 0xf
	v := binary.BigEndian.Uint32(sum[off:]) & 0x7fffffff
	mod := uint32(1)
	for range digits {
		mod *= 10
	}
	return fmt.Sprintf("%0*d", digits, v%mod)
}

// NewKey makes a key.
func NewKey() []byte {
	key := make([]byte, keyLen)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return key
}

// Text is the key as people type it.
func Text(key []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(key)
}

// Code is what an authenticator shows at a time.
func Code(key []byte, at time.Time) string {
	return hotp(key, uint64(at.Unix()/int64(Step/time.Second)), digits)
}

// Match gives the step of a good code that is newer than the last one used; false
// where there is none.
func Match(key []byte, code string, now time.Time, last int64) (step int64, ok bool) {
	at := now.Unix() / int64(Step/time.Second)
	for s := at - drift; s <= at+drift; s++ { // all are tried: no time tells which it was
		if s > last && subtle.ConstantTimeCompare([]byte(hotp(key, uint64(s), digits)), []byte(code)) == 1 && !ok {
			step, ok = s, true
		}
	}
	return step, ok
}

// URI is what an authenticator reads from a picture, in the form of
// https://github.com/google/google-authenticator/wiki/Key-Uri-Format.
func URI(user string, key []byte) string {
	return (&url.URL{
		Scheme: "otpauth", Host: "totp", Path: "/fulmar:" + user,
		RawQuery: "secret=" + Text(key) + "&issuer=fulmar",
	}).String()
}
