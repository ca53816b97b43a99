// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package fit makes text of others fit what carries it.
package fit

import (
	"strings"
	"unicode/utf8"
)

// Text makes text fit n bytes: cut between characters, and what is no UTF-8 replaced. CBOR
// with half a character can be read by nobody, the next start of who wrote it included.
func Text(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
