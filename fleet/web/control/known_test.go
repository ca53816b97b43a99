// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestKnown: the form knows the arguments of each command as docs/commands.md has them,
// which a test of the boards holds to their code.
func TestKnown(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([^|]*)\\| (?:quick|normal|long|safety) \\|")
	arg := regexp.MustCompile("`([a-z]+)` \\(([^)]*)\\)")
	all := row.FindAllStringSubmatch(string(text), -1)
	if len(all) < 13 {
		t.Fatalf("the table has %d commands", len(all))
	}
	for _, r := range all {
		var want []string
		for _, a := range arg.FindAllStringSubmatch(r[2], -1) {
			if strings.HasSuffix(a[2], "optional") {
				a[1] += "?"
			}
			want = append(want, a[1])
		}
		if got := known(r[1]); string(got) != strings.Join(want, " ") {
			t.Errorf("%s: the form knows %q, boards take %q", r[1], got, want)
		}
	}
}
