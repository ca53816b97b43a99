// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package totp

import (
	"strings"
	"testing"
	"time"
)

// TestVectors: appendix D of RFC 4226 and the SHA-1 rows of appendix B of RFC 6238.
func TestVectors(t *testing.T) {
	t.Parallel()
	key := []byte("12345678901234567890")
	for i, want := range []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"} {
		if got := hotp(key, uint64(i), 6); got != want {
			t.Errorf("HOTP %d is %s, wants %s", i, got, want)
		}
	}
	for at, want := range map[int64]string{
		59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130",
	} {
		if got := hotp(key, uint64(at/30), 8); got != want {
			t.Errorf("TOTP at %d is %s, wants %s", at, got, want)
		}
	}
}

// TestWindow: one step to either side, none older than the last one used.
func TestWindow(t *testing.T) {
	t.Parallel()
	key, now := []byte("12345678901234567890"), time.Unix(3000, 0) // step 100
	for step := int64(96); step < 105; step++ {
		got, ok := Match(key, hotp(key, uint64(step), 6), now, 0)
		if want := step >= 99 && step <= 101; ok != want || ok && got != step {
			t.Errorf("step %d: %v %d", step, ok, got)
		}
		if _, ok := Match(key, hotp(key, uint64(step), 6), now, 100); ok != (step == 101) {
			t.Errorf("step %d after 100 was used: %v", step, ok)
		}
	}
	for _, bad := range []string{"", "0", strings.Repeat("0", 100)} {
		if _, ok := Match(key, bad, now, 0); ok {
			t.Errorf("%q is good", bad)
		}
	}
}
