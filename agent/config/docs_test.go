// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"strings"
	"testing"
)

// TestExamplesOfRules: each example of docs/rules.md is a config that is taken.
func TestExamplesOfRules(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, made := strings.Split(string(b), "```yaml\n")[1:], 0
	for _, e := range examples {
		text, _, ok := strings.Cut(e, "```")
		if !ok {
			t.Fatal("an example has no end")
		}
		c, err := Parse([]byte(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		made += len(c.Rules) + len(c.Shed)
	}
	if len(examples) < 5 || made < 7 {
		t.Errorf("%d examples with %d rules", len(examples), made)
	}
}
