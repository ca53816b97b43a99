// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"strings"
	"testing"

	"fulmar/command"
)

// TestTyped: what a person types becomes what the command's fields want.
func TestTyped(t *testing.T) {
	t.Parallel()
	k := &command.Kind{Name: "x", Args: []command.Field{
		{Name: "camera", Type: command.Text},
		{Name: "percent", Type: command.Number, Max: 100},
		{Name: "for", Type: command.Duration},
		{Name: "force", Type: command.Bool},
		{Name: "tags", Type: command.Texts},
	}}
	for _, c := range []struct{ words, want, err string }{
		{"camera=0", `{"camera":"0"}`, ""}, // text, though it looks like a number
		{"percent=12.5 for=30s force=yes tags=a,b", `{"for":"30s","force":true,"percent":12.5,"tags":["a","b"]}`, ""},
		{"for=5 force=off", `{"for":5,"force":false}`, ""},
		{"camera=a=b", `{"camera":"a=b"}`, ""},
		{"camera", "", "not of the form NAME=VALUE"},
		{"=1", "", "not of the form NAME=VALUE"},
		{"percent=1 percent=2", "", "given twice"},
	} {
		got, err := typed(k, strings.Fields(c.words))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.words, err)
			}
			continue
		}
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.words, got, err, c.want)
		}
		args, err := command.FromJSON(got)
		if err == nil {
			_, err = k.Parse(args)
		}
		if err != nil {
			t.Errorf("%s: %v", c.words, err)
		}
	}
}

// TestJSONOf: a value is JSON, or text.
func TestJSONOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"5": "5", "true": "true", "night": `"night"`, `"5"`: `"5"`, `{"a":1}`: `{"a":1}`, "{a": `"{a"`} {
		if got := string(jsonOf(text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
