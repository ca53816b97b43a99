// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package device

import "bytes"

// The kernel's files are lines of fields between blanks. These take them apart
// without garbage; all of them take any bytes and none panics.

// NextLine cuts the first line off b, without its end.
func NextLine(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// NextField cuts the first field off b: bytes between blanks. An empty field
// means that there is none left.
func NextField(b []byte) (field, rest []byte) {
	i := 0
	for i < len(b) && blank(b[i]) {
		i++
	}
	j := i
	for j < len(b) && !blank(b[j]) {
		j++
	}
	return b[i:j], b[j:]
}

// SkipFields cuts n fields off b.
func SkipFields(b []byte, n int) []byte {
	for range n {
		_, b = NextField(b)
	}
	return b
}

// NextInt cuts the first field off b as a whole number.
func NextInt(b []byte) (v int64, rest []byte, ok bool) {
	f, rest := NextField(b)
	v, ok = ParseInt(f)
	return v, rest, ok
}

// TrimSpace cuts blanks, line ends and NUL bytes (device tree) off both ends.
func TrimSpace(b []byte) []byte {
	for len(b) > 0 && blank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && blank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func blank(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == 0
}

// ParseInt reads a whole number in decimal, with sign, up to 18 digits: larger
// ones are the kernel's way to say "unset" (18446744073709551615).
func ParseInt(b []byte) (int64, bool) {
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg, b = b[0] == '-', b[1:]
	}
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	v := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	if neg {
		v = -v
	}
	return v, true
}

// ParseDec reads a decimal number with a point, "0.42", as the kernel prints it.
func ParseDec(b []byte) (float64, bool) {
	i := bytes.IndexByte(b, '.')
	if i < 0 {
		v, ok := ParseInt(b)
		return float64(v), ok
	}
	whole, ok := ParseInt(b[:i])
	if !ok {
		return 0, false
	}
	frac := b[i+1:]
	if len(frac) == 0 || len(frac) > 9 || frac[0] == '-' || frac[0] == '+' {
		return 0, false
	}
	part, ok := ParseInt(frac)
	if !ok {
		return 0, false
	}
	scale := 1.0
	for range frac {
		scale *= 10
	}
	v := float64(part) / scale
	if b[0] == '-' {
		return float64(whole) - v, true
	}
	return float64(whole) + v, true
}
