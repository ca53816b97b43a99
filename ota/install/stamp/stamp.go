// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package stamp names what was staged by its version and content: "7.1-0123456789abcdef".
package stamp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
)

// hashDigits of SHA-256, 64 bits: a name, checked by the whole hashes beside it.
const hashDigits = 16

// File is one of what is named.
type File struct {
	Path   string
	SHA256 string // hex
	Unpack bool
}

// Of names files of a version: the same content of the same version has the same token.
func Of(version string, files []File) string {
	h := sha256.New()
	lines := make([]string, 0, len(files))
	for _, f := range files {
		lines = append(lines, fmt.Sprintf("%s %s %v\n", f.Path, f.SHA256, f.Unpack))
	}
	slices.Sort(lines)
	for _, l := range lines {
		_, _ = io.WriteString(h, l)
	}
	return version + "-" + hex.EncodeToString(h.Sum(nil))[:hashDigits]
}

var form = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9A-Za-z+~_][0-9A-Za-z.+~_-]{0,63}-[0-9a-f]{16}$`)
})

// Valid tells that a text has the form of a token; it is then also a plain name of a folder.
func Valid(s string) bool { return form().MatchString(s) }

// Version is that of a valid token.
func Version(s string) string { return s[:len(s)-hashDigits-1] }
