// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Argon2id parameters: the second recommended choice of RFC 9106 with fewer lanes,
// since few hash at the same time.
const (
	argonTime   = 3
	argonMemory = 64 << 10 // KiB
	argonLanes  = 2
)

// Dummy stands for the password of who is not there: the hash of nothing that anybody
// types, with the cost of a real one.
func Dummy() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", argon2.Version, argonMemory, argonTime, argonLanes)
}

// Bounds of passwords.
const (
	MinPassword = 15  // characters; NIST SP 800-63B for a password alone
	MaxPassword = 256 // bytes; more is no password but an attack
)

// HashPassword gives what is kept of a password: Argon2id with a salt of its own.
func HashPassword(pw string) string {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt)
	sum := argon2.IDKey([]byte(pw), salt, argonTime, argonMemory, argonLanes, 32)
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes, enc(salt), enc(sum))
}

// CheckPassword tells whether a password is the one that something was kept of.
func CheckPassword(stored, pw string) bool {
	var v, m, t, p int
	parts := strings.Split(stored, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &v, &m, &t, &p); err != nil ||
		v != argon2.Version || m < 8 || m > 1<<20 || t < 1 || t > 16 || p < 1 || p > 16 {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	sum, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || err2 != nil || len(sum) == 0 {
		return false
	}
	got := argon2.IDKey([]byte(pw), salt, uint32(t), uint32(m), uint8(p), uint32(len(sum)))
	return subtle.ConstantTimeCompare(got, sum) == 1
}

// Fit tells whether a new password will do.
func Fit(old, fresh string) bool {
	return utf8.RuneCountInString(fresh) >= MinPassword && len(fresh) <= MaxPassword && fresh != old
}
