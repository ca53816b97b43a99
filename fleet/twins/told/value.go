// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package told

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	"fulmar/twin"
)

// valueOf reads JSON as a value of a twin. A number with a point or an exponent is a
// float, any other an integer. null is no value: it deletes.
func valueOf(b json.RawMessage) (twin.Value, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var a any
	if err := d.Decode(&a); err != nil {
		return nil, fmt.Errorf("is not JSON")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("is more than one JSON value")
	}
	if a == nil {
		return nil, nil
	}
	a, err := plain(a)
	if err != nil {
		return nil, err
	}
	return twin.ValueOf(a)
}

// plain turns the numbers of a decoded value into Go's.
func plain(a any) (any, error) {
	var err error
	switch v := a.(type) {
	case nil:
		return nil, fmt.Errorf("holds a null, which is no value")
	case json.Number:
		return number(v)
	case []any:
		for i := range v {
			if v[i], err = plain(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = plain(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return a, nil
}

func number(n json.Number) (any, error) {
	if i, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return i, nil
	}
	if u, err := strconv.ParseUint(string(n), 10, 64); err == nil {
		return u, nil
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil || math.IsInf(f, 0) {
		return nil, fmt.Errorf("holds the number %.40s, which is out of range", string(n))
	}
	return f, nil
}

// JSON writes a value as JSON, nil for none. A float is written so that it is read
// as one again; one that JSON has no number for is written as text.
func JSON(v twin.Value) json.RawMessage {
	if len(v) == 0 {
		return nil
	}
	a, err := v.Any()
	if err != nil {
		return json.RawMessage(`"?"`) // values are checked before they are taken
	}
	return appendJSON(nil, a)
}

func appendJSON(b []byte, a any) []byte {
	switch v := a.(type) {
	case bool:
		return strconv.AppendBool(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case uint64:
		return strconv.AppendUint(b, v, 10)
	case float64:
		return appendFloat(b, v)
	case string:
		return appendText(b, v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, e)
		}
		return append(b, ']')
	case map[any]any:
		by := map[string]any{}
		for k, e := range v {
			if s, ok := k.(string); ok {
				by[s] = e
			}
		}
		b = append(b, '{')
		for i, k := range slices.Sorted(maps.Keys(by)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendText(b, k), ':')
			b = appendJSON(b, by[k])
		}
		return append(b, '}')
	}
	return append(b, `"?"`...) // no other kind is in a twin
}

func appendText(b []byte, s string) []byte {
	text, _ := json.Marshal(s) // text always does
	return append(b, text...)
}

func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return appendText(b, strconv.FormatFloat(f, 'g', -1, 64))
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !bytes.ContainsAny([]byte(s), ".e") {
		s += ".0"
	}
	return append(b, s...)
}
