// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func edition1(t *testing.T) (edition, map[string][]byte) {
	t.Helper()
	e := edition{"1.2.3", time.Unix(1_700_000_000, 0).UTC()}
	files, err := manual(e)
	if err != nil {
		t.Fatal(err)
	}
	return e, files
}

// TestPagesAreGood: mandoc reads each page and has nothing to warn of.
func TestPagesAreGood(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("mandoc"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mandoc is not there; run cross/need mandoc")
		}
		t.Skip("mandoc is not there; run cross/need mandoc")
	}
	_, files := edition1(t)
	if got, want := len(files), 7; got != want {
		t.Errorf("%d pages, wants %d: %v", got, want, slices.Sorted(maps.Keys(files)))
	}
	for name, text := range files {
		cmd := exec.Command("mandoc", "-T", "lint", "-W", "warning")
		cmd.Stdin = bytes.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if !bytes.Contains(text, []byte(".Dd November 14, 2023\n")) || !bytes.Contains(text, []byte(".Os fulmar 1.2.3\n")) {
			t.Errorf("%s has another date or version:\n%.200s", name, text)
		}
	}
}

// TestSameBytes: what is packed does not depend on the day, or on who builds it.
func TestSameBytes(t *testing.T) {
	t.Setenv("FULMAR_FLEET", "secret.example:1")
	t.Setenv("FULMAR_PIN", "feed")
	a, b := t.TempDir(), t.TempDir()
	e, _ := edition1(t)
	for _, dir := range []string{a, b} {
		if err := write(dir, e); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, path := range all(t, a) {
		rel, err := filepath.Rel(a, path)
		if err != nil {
			t.Fatal(err)
		}
		one, two := read(t, path), read(t, filepath.Join(b, rel))
		if n++; !bytes.Equal(one, two) {
			t.Errorf("%s is not the same twice", rel)
		}
		if bytes.Contains(one, []byte("secret.example")) || bytes.Contains(one, []byte("feed")) {
			t.Errorf("%s tells of this machine", rel)
		}
	}
	if n != 13 {
		t.Errorf("%d files, wants 7 pages and 6 completions", n)
	}
	if _, err := date("today"); err == nil {
		t.Error("a date that is none")
	}
}

func all(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// usageOf finds the usage text of a program in its sources.
func usageOf(t *testing.T, program string) string {
	t.Helper()
	paths, err := filepath.Glob("../../cmd/" + program + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				if v.Names[0].Name == "usage" {
					text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
					if err != nil {
						t.Fatal(err)
					}
					return text
				}
			}
		}
	}
	t.Fatalf("no const usage in cmd/%s", program)
	return ""
}

// TestHandWrittenPagesFollow: a page that a person writes tells of exactly the options
// that the program's usage tells of, and of each of its commands.
func TestHandWrittenPagesFollow(t *testing.T) {
	t.Parallel()
	_, files := edition1(t)
	long, fl, cm := regexp.MustCompile(`--([a-z-]+)`), regexp.MustCompile(`(?m)\bFl -([a-z-]+)`), regexp.MustCompile(`(?m)^\.Cm ([a-z -]+)`)
	for _, program := range []string{"fulmard", "fulmar-infer", "fulmar-launch", "fulmar-rootfs"} {
		usage, page := usageOf(t, program), string(files["man/"+program+".8"])
		synopsis, _, _ := strings.Cut(page, ".Sh DESCRIPTION")
		wants, has := words(long, usage), words(fl, page)
		if !slices.Equal(wants, has) {
			t.Errorf("cross/man/pages/%s.8 has the options %v, %s has %v", program, has, program, wants)
		}
		commands := words(cm, synopsis)
		for line := range strings.Lines(usage) {
			rest, is := strings.CutPrefix(line, "  "+program+" ")
			if !is {
				continue
			}
			var words []string
			for _, w := range strings.Fields(regexp.MustCompile(`\[[^]]*\]`).ReplaceAllString(rest, "")) {
				if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(w) {
					break
				}
				words = append(words, w)
			}
			if c := strings.Join(words, " "); c != "" && !slices.Contains(commands, c) {
				t.Errorf("cross/man/pages/%s.8 does not tell of %q: %v", program, c, commands)
			}
		}
	}
}

// words are what an expression finds, each once, in order.
func words(r *regexp.Regexp, text string) (out []string) {
	for _, m := range r.FindAllStringSubmatch(text, -1) {
		out = append(out, strings.TrimSpace(m[1]))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestErrorsPage: docs/errors.md is of the table.
func TestErrorsPage(t *testing.T) {
	t.Parallel()
	if !bytes.Equal(read(t, "../../docs/errors.md"), errorsMarkdown()) {
		t.Error("docs/errors.md is not of the table: go run ./cross/man --errors docs/errors.md")
	}
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word ", 20)
	in := []string{"a: 1 # short", "b: {c: 2}", "  d: 3  # " + long, "        # more", "  # alone", "e: 4"}
	out := narrow(in)
	for _, l := range out {
		if len(l) > keysWidth {
			t.Errorf("%d columns: %s", len(l), l)
		}
	}
	text := strings.Join(out, "\n")
	if !strings.Contains(text, "a: 1 # short\nb: {c: 2}\n  # word") || !strings.Contains(text, "more\n  d: 3\n  # alone\ne: 4") {
		t.Errorf("%s", text)
	}
}

func TestProse(t *testing.T) {
	t.Parallel()
	p := new(page)
	p.prose("It says no. Then yes, e.g. now! .dot and 'quote' `x`\\ and fulmar-fleet")
	if got, want := p.String(), "It says no.\nThen yes, e.g. now! .dot and 'quote' \\(gax\\(ga\\e and \\%fulmar\\-fleet\n"; got != want {
		t.Errorf("%q, wants %q", got, want)
	}
	p.Reset()
	p.prose(". begins")
	if p.String() != "\\&.\nbegins\n" && p.String() != "\\&. begins\n" {
		t.Errorf("%q", p.String())
	}
}
