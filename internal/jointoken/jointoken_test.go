// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package jointoken

import (
	"net/url"
	"os"
	"strings"
	"testing"

	"fulmar/schema"
)

func letters(n int) string { return strings.Repeat("a", n) }

func TestToken(t *testing.T) {
	t.Parallel()
	token := Token{Secret: "ABCDEFGHIJKLMNOPQRSTUVWX23", CAHash: [32]byte{1, 2, 255}}
	back, err := Parse("  " + token.String() + "\n")
	if err != nil || back != token {
		t.Errorf("%v, %v", back, err)
	}
	good := token.String()
	for _, bad := range []string{
		"", "fe1_", good[4:], "fe2_" + good[4:], good[:len(good)-1], good + "0", good + "_", good + "_fleet", good + "_fleet:8443_", good + "_" + letters(MaxAddress) + ":1", strings.Replace(good, "A", " ", 1),
		strings.Replace(good, "A", "\"", 1), "fe1_SHORT_" + good[31:], "fe1_" + strings.Repeat("A", 65) + good[30:], good[:31] + strings.Repeat("zz", 32),
	} {
		_, err := Parse(bad)
		if err == nil {
			t.Errorf("%q was read", bad)
			continue
		}
		if strings.Contains(err.Error(), "ABCDEF") || strings.Contains(err.Error(), "BCDEFGHI") {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

// TestVectors: what fleets have given out is read for ever, the form without an
// address too.
func TestVectors(t *testing.T) {
	t.Parallel()
	hash := [32]byte{}
	for i := range hash {
		hash[i] = byte(i * 7)
	}
	b, err := os.ReadFile("testdata/tokens")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", "fleet.example:8443", "192.0.2.7:443", "[2001:db8::1]:8443", "my_fleet-1:65535"}
	lines := strings.Fields(string(b))
	if len(lines) != len(want) {
		t.Fatalf("%d vectors, wants %d", len(lines), len(want))
	}
	for i, line := range lines {
		token := Token{"ABCDEFGHIJKLMNOPQRSTUVWX23", hash, want[i]}
		if got, err := Parse(line); err != nil || got != token || token.String() != line {
			t.Errorf("%s: %+v, %v; written %s", line, got, err, token)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a:1", "A.b-c_d:65535", "127.0.0.1:8443", "[::1]:8443", letters(253) + ":65535"} {
		if err := CheckAddress(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:+1", "a:01", "a:http", "a b:1", "a/b:1", "http://a:1", "a:1:2", "::1:1", "[::1]", "[a]:1", "[]:1", "[fe80::1%eth0]:1",
		"-a:1", "a;b:1", "ä:1", "a\n:1", "[127.0.0.1]:1", letters(256) + ":65535",
	} {
		if CheckAddress(bad) == nil {
			t.Errorf("%q was let through", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Token{Secret: strings.Repeat("A", 26)}.String())
	f.Add(Token{Secret: strings.Repeat("A", 26), Address: "[2001:db8::1]:8443"}.String())
	f.Add("fe1__")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := Parse(s)
		if err != nil {
			if len(s) > 30 && strings.Contains(err.Error(), s) {
				t.Fatal("the error shows the token")
			}
			return
		}
		back, err := Parse(token.String())
		if err != nil || back != token || len(token.String()) > Max {
			t.Fatalf("%q: %+v, then %+v, %v", s, token, back, err)
		}
		if a := token.Address; a != "" {
			if u, err := url.Parse("https://" + a + schema.EnrolPath); err != nil || u.Host != a || u.Path != schema.EnrolPath {
				t.Fatalf("%q is no host of a URL: %v", a, err)
			}
		}
	})
}
