// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package onboard

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"fulmar/schema"
)

func valve() *Kind {
	return &Kind{Name: "set-valve-position", Args: []Arg{
		{Name: "valve", Type: TypeText, Required: true, Choices: []string{"main", "drain"}},
		{Name: "percent", Type: TypeNumber, Max: 100, Unit: "%"},
		{Name: "for", Type: TypeDuration, Max: 60},
		{Name: "force", Type: TypeBool},
		{Name: "tags", Type: TypeTexts},
	}}
}

// TestWords: what a person types becomes typed values, or an error that says what is wanted.
func TestWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ words, want string }{
		{"valve=main", `{"valve":"main"}`},
		{"valve=drain percent=12.5 force=yes tags=a,b for=30s", `{"for":"30s","force":true,"percent":12.5,"tags":["a","b"],"valve":"drain"}`},
		{"valve=main for=1.5", `{"for":1.5,"valve":"main"}`},
		{"", "set-valve-position wants valve"},
		{"valve", "not of the form NAME=VALUE"},
		{"=main", "not of the form NAME=VALUE"},
		{"valve=main valve=drain", "given twice"},
		{"valve=other", "none of main, drain"},
		{"valve=main percent=much", "is no number"},
		{"valve=main percent=NaN", "is no number"},
		{"valve=main percent=101", "101 is out of range: 0 to 100 %"},
		{"valve=main percent=-1", "-1 is out of range"},
		{"valve=main for=2m", "2m is out of range: 0 to 60 s"},
		{"valve=main for=soon", "no time such as 30s"},
		{"valve=main force=1", "neither true nor false"},
		{"valve=main loud=1", "has no argument loud; it takes valve=main|drain [percent=NUMBER]"},
	} {
		got, err := valve().Words(strings.Fields(c.words))
		if err != nil {
			if !errors.Is(err, ErrArgs) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %s", c.words, err, c.want)
			}
			continue
		}
		if string(got) != c.want {
			t.Errorf("%s: %s, want %s", c.words, got, c.want)
		}
	}
}

// FuzzEncode: no JSON makes it panic, and what it takes is CBOR of known names alone.
func FuzzEncode(f *testing.F) {
	for _, s := range []string{`{"valve":"main"}`, `{"valve":"main","percent":1e308,"tags":["a"]}`, `[]`, `{"valve":"main","valve":"drain"}`, `{"valve":"main","for":"1h"}`, "{}{}", "null"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k := valve()
		b, err := k.Encode(json.RawMessage(s))
		if err != nil {
			return
		}
		var m map[string]any
		if err := schema.Decode(b, &m); err != nil {
			t.Fatal(err)
		}
		for name := range m {
			if k.arg(name) == nil {
				t.Errorf("%q came through", name)
			}
		}
		if m["valve"] != "main" && m["valve"] != "drain" {
			t.Errorf("valve %v", m["valve"])
		}
		if again, err := k.Encode(JSON(b)); err != nil || string(again) != string(b) {
			t.Errorf("%s is not what it was: %v", JSON(b), err)
		}
	})
}
