// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package debversion

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
)

// From dpkg's own tests (lib/dpkg/t/t-version.c, test_version_compare, and
// scripts/t/Dpkg_Version/versions.t), our forms of development versions, and hard cases.
func TestCompare(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"0:0-0", "0:0-0", 0},
		{"0:0-00", "0:00-0", 0},
		{"1:2-3", "1:2-3", 0},
		{"0:0-0", "1:0-0", -1},
		{"0:a-0", "0:b-0", -1},
		{"0:0-a", "0:0-b", -1},
		{"1:1.0-1", "0:2.0-1", 1},
		{"1.0-1", "2.0-2", -1},
		{"2.2~rc-4", "2.2-1", -1},
		{"2.2-1", "2.2~rc-4", 1},
		{"1.0000-1", "1.0-1", 0},
		{"1", "0:1", 0},
		{"0", "0:0-0", 0},
		{"2:2.5", "1:7.5", 1},
		{"1:0foo", "0foo", 1},
		{"0:0foo", "0foo", 0},
		{"0foo", "0foo", 0},
		{"0foo-0", "0foo", 0},
		{"0foo", "0fo", 1},
		{"0foo-0", "0foo+", -1},
		{"0foo~1", "0foo", -1},
		{"0foo~foo+Bar", "0foo~foo+bar", -1},
		{"0foo~~", "0foo~", -1},
		{"1~", "1", -1},
		{"12345+that-really-is-some-ver-0", "12345+that-really-is-some-ver-10", -1},
		{"0foo-0", "0foo-01", -1},
		{"0foo.bar", "0foobar", 1},
		{"0foo.bar", "0foo1bar", 1},
		{"0foo.bar", "0foo0bar", 1},
		{"0foo1bar-1", "0foobar-1", -1},
		{"0foo2.0", "0foo2", 1},
		{"0foo2.0.0", "0foo2.10.0", -1},
		{"0foo2.0", "0foo2.0.0", -1},
		{"0foo2.0", "0foo2.10", -1},
		{"0foo2.1", "0foo2.10", -1},
		{"1.09", "1.9", 0},
		{"1.0.8+nmu1", "1.0.8", 1},
		{"3.11", "3.10+nmu1", 1},
		{"0.9j-20080306-4", "0.9i-20070324-2", 1},
		{"1.2.0~b7-1", "1.2.0~b6-1", 1},
		{"1.011-1", "1.06-2", 1},
		{"0.0.9+dfsg1-1", "0.0.8+dfsg1-3", 1},
		{"4.6.99+svn6582-1", "4.6.99+svn6496-1", 1},
		{"53", "52", 1},
		{"0.9.9~pre122-1", "0.9.9~pre111-1", 1},
		{"2:2.3.2-2+lenny2", "2:2.3.2-2", 1},
		{"0.0.0~git20261126.25cf98b", "0.0.0~git20261125.fffffff", 1},
		{"0.0.0~git20261126.25cf98b", "0.1.0", -1},
		{"1.10.0", "1.9.9", 1},
		{"1.0.0~rc1", "1.0.0", -1},
		{"99999999999999999999999", "100000000000000000000000", -1},
		{"", "", 0},
	} {
		if got := sign(Compare(c.a, c.b)); got != c.want {
			t.Errorf("%s against %s: %d, wants %d", c.a, c.b, got, c.want)
		}
		if got := sign(Compare(c.b, c.a)); got != -c.want {
			t.Errorf("%s against %s: %d, wants %d", c.b, c.a, got, -c.want)
		}
	}
}

func sign(n int) int { return max(-1, min(1, n)) }

// TestAgainstDpkg asks dpkg itself about random versions of a small alphabet.
func TestAgainstDpkg(t *testing.T) {
	t.Parallel()
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	word := func(n int, letters string) string {
		b := []byte{}
		for range n {
			b = append(b, letters[r.IntN(len(letters))])
		}
		return string(b)
	}
	random := func() string {
		v := word(1, "012") + word(r.IntN(6), "019aZ.~+")
		if r.IntN(3) == 0 {
			v = word(1, "01") + ":" + v
		}
		if r.IntN(3) == 0 {
			v += "-" + word(1+r.IntN(3), "01a~+.")
		}
		return v
	}
	for range 150 {
		a, b := random(), random()
		got := sign(Compare(a, b))
		op := []string{"lt", "eq", "gt"}[got+1]
		out, err := exec.Command(dpkg, "--compare-versions", a, op, b).CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if err != nil || len(out) > 0 {
			t.Errorf("dpkg says that not %s %s %s; %s", a, op, b, out)
		}
	}
}

func FuzzCompare(f *testing.F) {
	f.Add("1.0", "1.0~rc1", "1:0")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if sign(Compare(a, b)) != -sign(Compare(b, a)) {
			t.Errorf("%q and %q: each is older than the other", a, b)
		}
		all := []string{a, b, c}
		slices.SortFunc(all, Compare)
		if Compare(all[0], all[2]) > 0 {
			t.Errorf("%q: no order", all)
		}
	})
}
