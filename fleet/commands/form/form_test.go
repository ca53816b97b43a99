// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package form

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"fulmar/schema"
)

// TestBoth: what people write comes back as they wrote it.
func TestBoth(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"position": 40}`: "a168706f736974696f6e1828", `{"a":0.5}`: "a16161f93800", `{"a":-3,"b":true,"c":null,"d":"x"}`: "a46161226162f56163f661646178",
		`{"a":[1,2,{"b":[]}]}`: "a16161830102a1616280", `{}`: "a0", `{"n":9223372036854775807}`: "a1616e1b7fffffffffffffff", `{"n":1e3}`: "a1616ef963d0",
	} {
		b, err := Encode(json.RawMessage(in), 100)
		if err != nil || hex.EncodeToString(b) != want {
			t.Errorf("%s: %x %v", in, b, err)
		}
		var x, y any
		if json.Unmarshal([]byte(in), &x) != nil || json.Unmarshal(Decode(b), &y) != nil || string(mustJSON(x)) != string(mustJSON(y)) {
			t.Errorf("%s comes back as %s", in, Decode(b))
		}
	}
	if b, err := Encode(nil, 1); b != nil || err != nil {
		t.Errorf("%x %v", b, err)
	}
	for _, bad := range []string{`[]`, `5`, `"x"`, `{`, `{} {}`, `{"a":1e999}`, `{"a":` + strings.Repeat("[", 7) + strings.Repeat("]", 7) + `}`, `{"a":"` + strings.Repeat("x", 100) + `"}`, "null"} {
		if b, err := Encode(json.RawMessage(bad), 100); err == nil {
			t.Errorf("%s is taken: %x", bad, b)
		}
	}
}

func mustJSON(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

// TestOdd: what a board may say and JSON cannot.
func TestOdd(t *testing.T) {
	t.Parallel()
	odd, err := schema.Encode(map[any]any{1: math.NaN(), "b": []byte{1, 2}, "i": math.Inf(1), "m": map[int]int{1: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(Decode(odd)); got != `{"1":null,"b":"AQI=","i":null,"m":{"1":2}}` {
		t.Errorf("%s", got)
	}
	if got := string(Decode([]byte{0xff})); got != `"1 bytes that cannot be read"` {
		t.Errorf("%s", got)
	}
	if Decode(nil) != nil {
		t.Error("nothing is something")
	}
}

// FuzzDecode: whatever a board sends becomes JSON.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"a168706f736974696f6e1828", "ff", "a1f6f6", "fb7ff8000000000000", "c074323031332d30332d32315432303a30343a30305a", "a28001a00180"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if out := Decode(b); len(b) > 0 && !json.Valid(out) {
			t.Errorf("%x becomes %q", b, out)
		}
	})
}

// FuzzEncode: whatever a person writes is refused, or is CBOR that a board reads.
func FuzzEncode(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{"a":[1.5,null]}`, `{"\ud800":1}`, `{"a":1,"a":2}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := Encode(json.RawMessage(s), 4096)
		if err == nil && len(b) > 0 && schema.Decode(b, new(any)) != nil {
			t.Errorf("%q becomes %x", s, b)
		}
	})
}
