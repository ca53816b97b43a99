// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package section

import (
	"bytes"
	"fmt"
	"math"

	"fulmar/schema"
	"fulmar/twin/wire"
)

// Value is the deterministic CBOR of what a key is set to: true or false, a number, text,
// or lists and maps of them, at most wire.MaxValue bytes. Equal values have equal
// bytes. No value (nil) means that the key is not set.
type Value []byte

// maxDepth is how deep lists and maps may lie in each other: a list of models with their
// settings is three.
const maxDepth = 4

// ValueOf encodes a Go value: bool, any integer, float, string, []any, map[string]any.
func ValueOf(v any) (Value, error) {
	if err := plain(v, 0); err != nil {
		return nil, err
	}
	b, err := schema.Encode(v)
	if err != nil {
		return nil, err
	}
	if len(b) > wire.MaxValue {
		return nil, fmt.Errorf("a value of %d bytes, at most %d", len(b), wire.MaxValue)
	}
	return b, nil
}

// Any decodes the value; integers come as uint64 or int64, maps as map[any]any.
func (v Value) Any() (any, error) {
	var a any
	if err := schema.Decode(v, &a); err != nil {
		return nil, fmt.Errorf("a twin's value: %w", err)
	}
	return a, nil
}

// Check says what is wrong with bytes that came from outside.
func (v Value) Check() error {
	a, err := v.Any()
	if err != nil {
		return err
	}
	if err := plain(a, 0); err != nil {
		return err
	}
	b, err := schema.Encode(a)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, v) {
		return fmt.Errorf("a value that is not deterministic CBOR")
	}
	return nil
}

// number gives the value as a number, if it is one that can be compared.
func (v Value) number() (float64, bool) {
	a, err := v.Any()
	if err != nil {
		return 0, false
	}
	switch n := a.(type) {
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, !math.IsNaN(n)
	}
	return 0, false
}

func plain(v any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("a value with lists and maps over %d deep", maxDepth)
	}
	switch v := v.(type) {
	case bool, string, int, int64, uint64, float64:
		return nil
	case []any:
		for _, e := range v {
			if err := plain(e, depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for _, e := range v {
			if err := plain(e, depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[any]any:
		for k, e := range v {
			if _, ok := k.(string); !ok {
				return fmt.Errorf("a map with a key that is no text: %v", k)
			}
			if err := plain(e, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("a value of a kind that a twin does not hold: %T", v)
}
