// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"strings"
	"testing"
)

func TestTokenForm(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 200 {
		s := NewToken()
		if len(s) != 53 || !strings.HasPrefix(s, "fk1_") || seen[s] || !WellFormed(s) {
			t.Fatal(s)
		}
		seen[s] = true
		for i := range s { // any one character changed is no token
			c := byte('A')
			if s[i] == c {
				c = 'B'
			}
			if bad := s[:i] + string(c) + s[i+1:]; WellFormed(bad) {
				t.Fatalf("%s and %s are both well-formed", s, bad)
			}
		}
	}
	old := "fk1_" + strings.Repeat("0a", 32)
	for s, want := range map[string]bool{old: true, old + "0": false, strings.ToUpper(old): false, "": false, "fk1_": false, "fk1_" + strings.Repeat("g", 64): false} {
		if WellFormed(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// TestDummy: the hash for who is not there costs as much as a real one and is of nothing.
func TestDummy(t *testing.T) {
	t.Parallel()
	cost := func(stored string) string { return strings.Join(strings.Split(stored, "$")[:4], "$") }
	if real := HashPassword("x"); cost(Dummy()) != cost(real) || len(Dummy()) != len(real) || CheckPassword(Dummy(), "") {
		t.Errorf("%s costs other than %s, or is a hash of something", Dummy(), real)
	}
	if h := HashPassword("correct horse"); !CheckPassword(h, "correct horse") || CheckPassword(h, "correct horsf") || h == HashPassword("correct horse") {
		t.Error("passwords are not told apart, or have no salt of their own")
	}
	for _, bad := range []string{"", "$argon2id$v=19$m=999999999,t=3,p=2$AAAA$AAAA", "$argon2id$v=19$m=64,t=3,p=2$AAAA$", "$argon2i$v=19$m=64,t=3,p=2$AAAA$AAAA", "$$$$$"} {
		if CheckPassword(bad, "") {
			t.Errorf("%q lets in", bad)
		}
	}
}
