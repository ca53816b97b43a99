// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import "fmt"

// clip shortens outside text for an error message.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// CheckName tells whether s may name a series, subject, camera or model: 1 to
// [MaxName] bytes of a-z, 0-9, '-', '_', '.' and '/', beginning with a letter or digit.
// So a name is safe in a topic, a file name, a metric label and a URL.
func CheckName(s string) error { return checkName("name", s) }

func checkName(what, s string) error {
	if s == "" || len(s) > MaxName {
		return fmt.Errorf("%s %q is %d bytes long, wants 1 to %d", what, clip(s), len(s), MaxName)
	}
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && (c == '-' || c == '_' || c == '.' || c == '/')
		if !ok {
			return fmt.Errorf("%s %q: only a-z 0-9 - _ . / may be used, and a-z 0-9 first", what, clip(s))
		}
	}
	return nil
}

// checkLevel is checkName without '/', for one level of a topic.
func checkLevel(what, s string) error {
	for i := range len(s) {
		if s[i] == '/' {
			return fmt.Errorf("%s %q: '/' may not be used", what, clip(s))
		}
	}
	return checkName(what, s)
}

// CheckBlobName tells whether s may name a blob: a name without '/', so that it
// can be a file name in one folder.
func CheckBlobName(s string) error { return checkLevel("blob", s) }

// CheckBoard tells whether s may name a tenant or a board: one topic level.
func CheckBoard(s string) error { return checkLevel("board", s) }
