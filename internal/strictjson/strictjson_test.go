// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package strictjson

import "testing"

type form struct {
	A int              `json:"a"`
	M map[string]*form `json:"m"`
}

// TestDecode: what two decoders could see differently is refused.
func TestDecode(t *testing.T) {
	t.Parallel()
	var f form
	if err := Decode([]byte(` {"a":1,"m":{"x":{"a":2}}} `), 64, &f); err != nil || f.A != 1 || f.M["x"].A != 2 {
		t.Fatalf("%+v, %v", f, err)
	}
	for name, s := range map[string]string{
		"unknown":       `{"b":1}`,
		"twice":         `{"a":1,"a":2}`,
		"twice in case": `{"a":1,"A":2}`,
		"twice deep":    `{"m":{"x":{"a":1},"x":{}}}`,
		"more":          `{"a":1}{}`,
		"cut":           `{"a":1`,
		"empty":         ``,
		"type":          `{"a":"1"}`,
		"deep":          `{"m":{"x":{"m":{"x":{"m":{"x":{"m":{"x":{"m":{"x":{}}}}}}}}}}}`,
		"long":          `{"a":1                                                                       }`,
	} {
		if err := Decode([]byte(s), 64, &form{}); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"a":1,"m":{"x":{"a":2}}}`))
	f.Fuzz(func(_ *testing.T, b []byte) { _ = Decode(b, 1<<16, &form{}) })
}
