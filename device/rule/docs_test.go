// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import (
	"os"
	"strings"
	"testing"

	"fulmar/device/rule/script"
)

// TestDocs: docs/rules.md names every word, input and function that there is. Its
// examples are compiled by a test of agent/config.
func TestDocs(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	names := append([]string{"when", "for", "every", "do", "until", "else", "lease", "alone", "stale"}, script.InLinkUp, script.InDownFor, script.InSafety, script.InHour, script.InMinute, script.InWeekday, "count(", "known(", "abs(", "min(", "max(")
	for _, w := range names {
		if !strings.Contains(string(b), "`"+w) {
			t.Errorf("docs/rules.md does not say `%s`", w)
		}
	}
}
