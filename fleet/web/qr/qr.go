// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package qr draws a text as a QR code that a template writes as SVG: a path without
// style, so that the page's policy needs no exception.
package qr

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the white border that readers need, in modules (ISO/IEC 18004, 9.1).
const quiet = 4

// Code is a drawn code.
type Code struct {
	Size int    // of its square, in modules, with the border
	Path string // the black modules, for the d of an SVG path
}

// Encode draws a text of at most some 2,000 bytes, readable with up to 15 % of it
// covered.
func Encode(text string) (Code, error) {
	c, err := qr.Encode(text, qr.M)
	if err != nil {
		return Code{}, fmt.Errorf("draw QR code: %w", err)
	}
	var b strings.Builder
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			from := x
			for x < c.Size && c.Black(x, y) {
				x++
			}
			if n := x - from; n > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from+quiet, y+quiet, n, n)
			}
		}
	}
	return Code{Size: c.Size + 2*quiet, Path: b.String()}, nil
}
