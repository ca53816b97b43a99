// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cross

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// top is the repository.
const top = "../.."

// copyTo lays files of the repository into a folder, with their modes.
func copyTo(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		from := filepath.Join(top, f)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

// sh runs a command in dir and returns what it printed, without the last line break.
func sh(t *testing.T, dir string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSuffix(string(out), "\n"), err
}

func must(t *testing.T, dir string, name string, args ...string) string {
	t.Helper()
	// Nothing of the user's settings, and a day that is another one in most places.
	env := []string{
		"HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "TZ=Pacific/Auckland",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_AUTHOR_DATE=2026-03-04T23:30:00Z", "GIT_COMMITTER_DATE=2026-03-04T23:30:00Z",
	}
	out, err := sh(t, dir, env, name, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}

func TestVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	copyTo(t, dir, "cross/version")
	version := func() string { t.Helper(); return must(t, dir, "cross/version") }

	if v := version(); v != "0.0.0~unknown" {
		t.Errorf("without git it is %q", v)
	}
	must(t, dir, "git", "init", "-q", ".")
	if out, err := sh(t, dir, nil, "cross/version"); err == nil || !strings.Contains(out, "cannot read this repository") {
		t.Errorf("a repository without a commit gives %q, %v; wants a refusal", out, err)
	}
	must(t, dir, "git", "add", ".")
	must(t, dir, "git", "commit", "-q", "-m", "one")

	plain := version()
	if !regexp.MustCompile(`^0\.0\.0~git20260304\.[0-9a-f]{12}$`).MatchString(plain) {
		t.Errorf("a commit without a tag is %q; wants its day in UTC and 12 digits", plain)
	}
	if e := must(t, dir, "cross/version", "epoch"); e != "1772667000" {
		t.Errorf("epoch is %q", e)
	}
	// Which tag counts, as they come one after the other onto the same commit.
	for _, c := range []struct{ tag, want string }{
		{"nightly", plain},
		{"v1.2", plain},
		{"v1.2.3-rc1", "1.2.3~rc1"},
		{"v1.2.3", "1.2.3"},
		{"v1.2.3-rc2", "1.2.3"},
		{"v1.10.0", "1.10.0"},
	} {
		must(t, dir, "git", "tag", c.tag)
		if v := version(); v != c.want {
			t.Errorf("with tag %s it is %q, wants %q", c.tag, v, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "untracked"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if v := version(); v != "1.10.0" {
		t.Errorf("an untracked file makes it %q", v)
	}
	f, err := os.OpenFile(filepath.Join(dir, "cross/version"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("# changed\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if v := version(); v != "1.10.0+dirty" {
		t.Errorf("with a changed file it is %q", v)
	}
}

// TestVersionOrder holds the forms to Debian's order, which decides what replaces what.
func TestVersionOrder(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("dpkg"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no dpkg, so not a Debian")
		}
		t.Skip("no dpkg, so not a Debian")
	}
	order := []string{"0.0.0~git20260304.ffffffffffff", "0.0.0~git20260305.000000000000", "0.0.0~unknown", "1.2.3~rc1", "1.2.3~rc2", "1.2.3", "1.2.3+dirty", "1.10.0"}
	for i := range order[1:] {
		if out, err := sh(t, ".", nil, "dpkg", "--compare-versions", order[i], "lt", order[i+1]); err != nil {
			t.Errorf("%s is not before %s: %v %s", order[i], order[i+1], err, out)
		}
	}
}
