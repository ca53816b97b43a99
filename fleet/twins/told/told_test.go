// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package told

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"

	"fulmar/schema/rest"
	"fulmar/twin"
)

// TestValue: JSON becomes a value of the same kind, and the same JSON again.
func TestValue(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"1": "1", "-1": "-1", "1.0": "1.0", "1e3": "1000.0", "0.1": "0.1", "18446744073709551615": "18446744073709551615", "true": "true", `"x\n"`: `"x\n"`,
		` {"b":[1, 2.5],"a":{}} `: `{"a":{},"b":[1,2.5]}`, "null": "", "1e300": "1e+300",
	} {
		v, err := valueOf(json.RawMessage(in))
		if err != nil || string(JSON(v)) != want {
			t.Errorf("%s: %s, %v", in, JSON(v), err)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(-1)} { // a board may say so
		v, err := twin.ValueOf(f)
		if err != nil || !json.Valid(JSON(v)) {
			t.Errorf("%v: %s, %v", f, JSON(v), err)
		}
	}
}

// FuzzValues: what anybody sends as a patch is a patch, or an error, and what is in a
// twin is JSON that reads as the same.
func FuzzValues(f *testing.F) {
	for _, s := range []string{`{"set":{"log.level":"debug","a":null,"b":[1,2.5,{"c":true}]},"reason":"x"}`, `{"set":{"a":1e400}}`, `{"set":{"":1}}`, `{"set":{"a":18446744073709551616}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p rest.TwinPatch
		if json.Unmarshal(b, &p) != nil {
			return
		}
		values, err := Values(p)
		if err != nil {
			return
		}
		for key, v := range values {
			if v == nil {
				continue
			}
			if err := v.Check(); err != nil {
				t.Errorf("%q: %v", key, err)
			}
			again, err := valueOf(JSON(v))
			if err != nil || !bytes.Equal(again, v) {
				t.Errorf("%q: %s is %x again, was %x: %v", key, JSON(v), again, v, err)
			}
		}
	})
}
