// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package form turns arguments and answers of commands from JSON, which people and the
// API write, into CBOR, which boards read, and back.
package form

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"fulmar/schema"
)

// maxDepth bounds how deep values lie in each other: the codec of the wire takes 8.
const maxDepth = 6

// Encode gives the CBOR of a JSON object, at most limit bytes; nil for no JSON. A number
// without a point or an exponent becomes an integer, which readers of numbers take as well.
func Encode(text json.RawMessage, limit int) ([]byte, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("is no JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something after its end")
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("wants a JSON object: {\"name\": value}")
	}
	out, err := plain(m, 0)
	if err != nil {
		return nil, err
	}
	b, err := schema.Encode(out)
	if err != nil {
		return nil, errors.New("cannot be written for a board")
	}
	if len(b) > limit {
		return nil, fmt.Errorf("has %d bytes for a board, at most %d", len(b), limit)
	}
	if err := schema.Decode(b, new(any)); err != nil { // what a board reads is bounded
		return nil, errors.New("has more names or values in one place than a board reads")
	}
	return b, nil
}

func plain(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("lies more than %d values deep", maxDepth)
	}
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n, nil
		}
		f, err := v.Float64()
		if err != nil {
			return nil, errors.New("has a number that is too large")
		}
		return f, nil
	case map[string]any:
		for k, x := range v {
			y, err := plain(x, depth+1)
			if err != nil {
				return nil, err
			}
			v[k] = y
		}
	case []any:
		for i, x := range v {
			y, err := plain(x, depth+1)
			if err != nil {
				return nil, err
			}
			v[i] = y
		}
	}
	return v, nil
}

// Decode gives the JSON of CBOR that a board or [Encode] wrote; nil for none. What JSON
// cannot say is said as near as it can: bytes as base64, a number that is none as null,
// names that are no text as text. CBOR that cannot be read becomes a sentence about it.
func Decode(b []byte) json.RawMessage {
	if len(b) == 0 {
		return nil
	}
	var v any
	if err := schema.Decode(b, &v); err != nil {
		return unreadable(len(b))
	}
	out, err := json.Marshal(said(v))
	if err != nil {
		return unreadable(len(b))
	}
	return out
}

func unreadable(n int) json.RawMessage {
	out, _ := json.Marshal(fmt.Sprintf("%d bytes that cannot be read", n)) // a string: never fails
	return out
}

// said makes a value of what JSON can say. The codec has bounded its depth.
func said(v any) any {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
	case string:
		if !utf8.ValidString(v) {
			return fmt.Sprintf("%q", v)
		}
	case []any:
		for i := range v {
			v[i] = said(v[i])
		}
	case map[any]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[fmt.Sprint(k)] = said(x)
		}
		return out
	}
	return v
}
