// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are those whose commands a reader types as they stand.
func pages() []string {
	return []string{"README.md", "docs/twin.md", "docs/commands.md", "docs/local.md", "docs/rules.md", "docs/outputs.md", "docs/api.md", "docs/errors.md"}
}

func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// split reads words as a shell does, as far as pages use it.
func split(line string) (out []string) {
	for _, w := range regexp.MustCompile(`(?:[^\s'"]|'[^']*'|"[^"]*")+`).FindAllString(line, -1) {
		if w == "#" {
			break
		}
		out = append(out, regexp.MustCompile(`'([^']*)'|"([^"]*)"`).ReplaceAllString(w, "$1$2"))
	}
	return out
}

// TestDocsAreTyped: each command of the fleet and the board that a page has is one that
// there is, with options that it takes. None is answered: there is no fleet here.
func TestDocsAreTyped(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("FULMAR_FLEET", "127.0.0.1:1")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FULMAR_TOKEN_FILE", token)
	line := regexp.MustCompile("(?m)(?:^ *(?:\\$ )?(?:sudo )?|`)(fulmar (?:twin|conflict|command|local) [^`\n]*)")
	n := 0
	for _, name := range pages() {
		for _, m := range line.FindAllStringSubmatch(page(t, name), -1) {
			args := split(m[1])[1:]
			if args[0] == "local" {
				args = append(args, "--socket", "/nowhere/local.sock")
			}
			var out bytes.Buffer
			n++
			if code := Run(context.Background(), "dev", args, &out, &out); code == 2 && !slices.Contains(args, "--help") {
				t.Errorf("%s: %s: %s", name, m[1], out.String())
			}
		}
	}
	if n < 40 {
		t.Errorf("%d commands were found: the pages are written otherwise now", n)
	}
}

// TestDocsArguments: commands for boards have the arguments of the table in
// docs/commands.md, which a test of the boards holds to their code.
func TestDocsArguments(t *testing.T) {
	t.Parallel()
	takes := map[string][]string{}
	for _, r := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([^|]*)\\| (?:quick|normal|long|safety) \\|").FindAllStringSubmatch(page(t, "docs/commands.md"), -1) {
		takes[r[1]] = nil
		for _, a := range regexp.MustCompile("`([a-z]+)` \\(").FindAllStringSubmatch(r[2], -1) {
			takes[r[1]] = append(takes[r[1]], a[1])
		}
	}
	given := regexp.MustCompile("give [^`\n]*?\\b([a-z]+-[a-z-]+)((?: [a-z]+=\\S+)+)")
	acts := regexp.MustCompile(`"?command"?: ?"?([a-z-]+)"?, ?"?args"?: ?\{([^}]*)\}`)
	n := 0
	for _, name := range pages() {
		text := page(t, name)
		for _, m := range slices.Concat(given.FindAllStringSubmatch(text, -1), acts.FindAllStringSubmatch(text, -1)) {
			args, known := takes[m[1]]
			if !known {
				continue // of a user
			}
			for _, a := range regexp.MustCompile(`"?([a-z]+)"?[=:]`).FindAllStringSubmatch(m[2], -1) {
				n++
				if !slices.Contains(args, a[1]) {
					t.Errorf("%s: %s has no argument %s, but %s", name, m[1], a[1], strings.Join(args, ", "))
				}
			}
		}
	}
	if len(takes) < 13 || n < 15 {
		t.Errorf("%d commands and %d arguments were found: the pages are written otherwise now", len(takes), n)
	}
}
