// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package strictjson decodes JSON that was signed, or that decides something: whatever two
// decoders could see differently is refused.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth is how deep JSON may nest: the deepest form here, a manifest of a release, has
// seven levels.
const maxDepth = 8

// Decode decodes JSON of at most limit bytes and refuses unknown fields, fields given
// twice (in any case of letters), nesting over eight deep, and bytes after the value.
func Decode(b []byte, limit int, into any) error {
	if len(b) > limit {
		return fmt.Errorf("%d bytes, at most %d", len(b), limit)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := unique(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more after the JSON value")
	}
	d = json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// unique reads one value and refuses an object that names a field twice.
func unique(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested over %d deep", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return errors.New("not JSON")
	}
	if t != json.Delim('{') && t != json.Delim('[') {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if t == json.Delim('{') {
			name, err := d.Token()
			if err != nil {
				return errors.New("not JSON")
			}
			// The decoder takes a field in any case of letters.
			k := strings.ToLower(fmt.Sprint(name))
			if seen[k] {
				return fmt.Errorf("field %.40q twice", k)
			}
			seen[k] = true
		}
		if err := unique(d, depth+1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return errors.New("not JSON")
	}
	return nil
}
