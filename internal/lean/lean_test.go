// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

func rssFile(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Skip("this kernel does not tell RssFile")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDrop: pages of the program leave, and everything goes on.
func TestDrop(t *testing.T) {
	before := rssFile(t)
	n, err := Drop()
	if err != nil || n == 0 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if after := rssFile(t); after >= before*3/4 {
		t.Errorf("%d kB of files before, %d after", before, after)
	}
	if m := regexp.MustCompile(`a+b`).FindString("xaab"); m != "aab" {
		t.Errorf("code does not run any more: %q", m)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"00400000-00e2c000 r-xp 00000000 08:01 12   /bin/x": true,
		"00e2c000-01400000 r--p 00a2c000 08:01 12   /bin/x": true,
		"01400000-01480000 rw-p 01000000 08:01 12   /bin/x": false, // holds state
		"01400000-01480000 r--s 01000000 08:01 12   /bin/x": false,
		"00400000-00e2c000 r-xp 00000000 08:01 12   /bin/y": false,
		"c000000000-c000400000 rw-p 00000000 00:00 0":       false,
		"00e2c000-00400000 r--p 00a2c000 08:01 12   /bin/x": false,
		"nonsense": false,
		"":         false,
	} {
		if _, _, ok := readOnly(line, "/bin/x"); ok != want {
			t.Errorf("%q: %v", line, ok)
		}
	}
}
