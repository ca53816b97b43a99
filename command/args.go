// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"fulmar/schema"
)

// maxDepth is how deep lists and maps may lie in each other.
const maxDepth = 6

// FromJSON gives the CBOR map of a JSON object, for arguments or values of settings:
// numbers, text, bools, lists and objects. It does not know the command: whole numbers
// stay whole. null is refused. Nothing, or an empty object, gives nil.
func FromJSON(text []byte) ([]byte, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("arguments: no JSON object: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("arguments: something follows the JSON object")
	}
	if len(m) == 0 {
		return nil, nil
	}
	v, err := plain(m, 0)
	if err != nil {
		return nil, fmt.Errorf("arguments: %w", err)
	}
	return bounded(v)
}

// FromWords gives the CBOR map of words NAME=VALUE as a person types them: a VALUE that is
// JSON (a number, true, false, a list, text in quotes) is that, any other is text.
func FromWords(words []string) ([]byte, error) {
	if len(words) == 0 {
		return nil, nil
	}
	m := map[string]any{}
	for _, w := range words {
		name, text, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("argument %.60q: wants NAME=VALUE", w)
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("argument %.60q is there twice", name)
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil || v == nil || d.More() {
			v = text
		}
		p, err := plain(v, 0)
		if err != nil {
			return nil, fmt.Errorf("argument %.60q: %w", name, err)
		}
		m[name] = p
	}
	return bounded(m)
}

func bounded(v any) ([]byte, error) {
	b, err := schema.Encode(v)
	if err == nil && len(b) > MaxArgs {
		err = fmt.Errorf("arguments of %d bytes, at most %d", len(b), MaxArgs)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// plain turns what the JSON decoder gives into what CBOR holds.
func plain(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("lists and objects lie more than %d deep in each other", maxDepth)
	}
	switch t := v.(type) {
	case nil:
		return nil, errors.New("null is no value; leave the name out")
	case json.Number:
		if n, err := strconv.ParseInt(t.String(), 10, 64); err == nil {
			return n, nil
		}
		f, err := t.Float64()
		if err != nil {
			return nil, fmt.Errorf("%.40s is no number that a board can hold", t)
		}
		return f, nil
	case []any:
		for i := range t {
			p, err := plain(t[i], depth+1)
			if err != nil {
				return nil, err
			}
			t[i] = p
		}
	case map[string]any:
		for k := range t {
			p, err := plain(t[k], depth+1)
			if err != nil {
				return nil, fmt.Errorf("%.40q: %w", k, err)
			}
			t[k] = p
		}
	}
	return v, nil
}

// ToJSON gives CBOR, arguments or what a handler answered, as JSON for people and pages;
// nil for nothing. Bytes are base64, numbers that JSON does not have are null.
func ToJSON(b []byte) (json.RawMessage, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var v any
	if err := schema.Decode(b, &v); err != nil {
		return nil, err
	}
	return json.Marshal(shown(v))
}

func shown(v any) any {
	switch t := v.(type) {
	case float64:
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return nil
		}
	case []byte:
		return base64.StdEncoding.EncodeToString(t)
	case []any:
		for i := range t {
			t[i] = shown(t[i])
		}
	case map[any]any:
		m := make(map[string]any, len(t))
		for k, e := range t {
			m[fmt.Sprint(k)] = shown(e)
		}
		return m
	}
	return v
}
