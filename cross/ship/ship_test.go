// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// build compiles something in a folder of its own and fails the test if it cannot.
func build(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// expect holds an error to a part of its text; "" is for none.
func expect(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v; wants %q", what, err, want)
	}
}

// TestPrograms runs the checks over programs of the compilers of this machine.
func TestPrograms(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir+"/go.mod", "module x\n\ngo 1.26\n")
	put(t, dir+"/main.go", "package main\n\nfunc main() {}\n")
	build(t, dir, []string{"CGO_ENABLED=0", "GOARCH=arm64", "GOFLAGS="}, "go", "build", "-o", "static", ".")
	put(t, dir+"/own.c", "int puts(const char *); int own(void) { return puts(\"\"); }\n")
	put(t, dir+"/needs.c", "int own(void); int main(void) { return own(); }\n")
	put(t, dir+"/plain.c", "int puts(const char *); int main(void) { return puts(\"\"); }\n")
	build(t, dir, nil, "gcc", "-shared", "-Wl,-soname,libown.so.1", "-o", "libown.so", "own.c")
	build(t, dir, nil, "gcc", "-o", "needs", "needs.c", "-L.", "-lown")
	build(t, dir, nil, "gcc", "-o", "plain", "plain.c")
	put(t, dir+"/text", "#!/bin/sh\n")

	host, other := runtime.GOARCH, "amd64"
	if host == "amd64" {
		other = "arm64"
	}
	for _, c := range []struct {
		check      func(path, arch string) error
		file, arch string
		want       string
	}{
		{static, "static", "arm64", ""},
		{static, "static", "amd64", "is for EM_AARCH64, not for amd64"},
		{static, "static", "mips", "no such architecture here: mips"},
		{static, "plain", host, "it asks for an interpreter"},
		{static, "libown.so", host, "it needs libc.so.6"},
		{static, "text", host, "not a program that can be read"},
		{static, "none", host, "no such file"},
		{bounds, "static", "arm64", "needs no library at all"},
		{bounds, "plain", other, "not for " + other},
		{bounds, "needs", host, "needs libown.so.1, which a board need not have"},
		// The C library of this machine is newer than 2.33, as on any Debian since 12: its
		// way to start a program is what JetPack 5 refuses.
		{bounds, "plain", host, "symbol __libc_start_main of libc.so.6: version GLIBC_2.34 is newer than GLIBC_2.31"},
	} {
		expect(t, c.file+" for "+c.arch, c.check(filepath.Join(dir, c.file), c.arch), c.want)
	}
}

func TestWithin(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"GLIBC_2.17":        "",
		"GLIBC_2.2.5":       "",
		"GLIBC_2.31":        "",
		"GLIBC_2.32":        "newer than GLIBC_2.31",
		"GLIBC_2.4":         "",
		"GLIBC_3":           "newer",
		"GLIBC_2.31.1":      "newer",
		"GLIBCXX_3.4.28":    "",
		"GLIBCXX_3.4.29":    "newer than GLIBCXX_3.4.28",
		"GLIBCXX_3.4.9":     "",
		"CXXABI_1.3.12":     "",
		"CXXABI_1.3.13":     "newer",
		"GCC_7.0.0":         "",
		"GCC_12.0.0":        "newer",
		"GLIBC_PRIVATE":     "is not a number",
		"LIBOWN_1":          "a family without a bound",
		"GLIBC":             "is not a number",
		"CXXABI_TM_1":       "is not a number",
		"GLIBC_ABI_DT_RELR": "is not a number",
	} {
		expect(t, version, within(version), want)
	}
}

// raw is what cyclonedx-gomod says of a program, cut down to one of each kind.
const raw = `{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"metadata":{
"tools":[{"name":"cyclonedx-gomod","version":"v1","hashes":[{"alg":"MD5","content":"of-this-machine"}]}],
"component":{"bom-ref":"main","type":"application","name":"fulmar","purl":"pkg:golang/fulmar?goarch=arm64\u0026goos=linux"}},
"components":[
{"bom-ref":"a","type":"library","name":"example.org/a","version":"v1","evidence":{"licenses":[{"license":{"id":"MIT"}}]}},
{"bom-ref":"std","type":"library","name":"std","version":"go1.26"}],
"dependencies":[{"ref":"main","dependsOn":["a","std"]},{"ref":"a"}]}`

func TestSBOM(t *testing.T) {
	t.Parallel()
	lib := filepath.Join(t.TempDir(), "lib")
	put(t, lib, "abc")
	var worker, again, plain bytes.Buffer
	for out, library := range map[*bytes.Buffer]string{&worker: lib, &again: lib, &plain: ""} {
		if err := sbom(strings.NewReader(raw), out, "fulmar-infer", library, "1.30.0"); err != nil {
			t.Fatal(err)
		}
	}
	if worker.String() != again.String() {
		t.Error("two bills of one program differ")
	}
	for _, want := range []string{
		`"pkg:npm/onnxruntime-node@1.30.0"`, `"fulmar-infer"`, `"BSD-3-Clause"`, `"Apache-2.0"`, `goarch=arm64&goos=linux`,
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", // SHA-256 of abc
		"\"std\",\n        \"pkg:npm/onnxruntime-node@1.30.0\"",            // what the program depends on
	} {
		if !strings.Contains(worker.String(), want) {
			t.Errorf("the bill lacks %s:\n%s", want, worker.String())
		}
	}
	if strings.Contains(worker.String(), "of-this-machine") {
		t.Error("the bill tells who built the tool")
	}
	if strings.Contains(plain.String(), "onnx") {
		t.Error("a program without the worker's library has it in its bill")
	}
	for _, c := range []struct{ text, library, want string }{
		{strings.Replace(raw, `"evidence"`, `"purl":"","x"`, 1), "", "not what this program knows"},
		{strings.Replace(raw, `{"licenses":[{"license":{"id":"MIT"}}]}`, `{"licenses":[]}`, 1), "", "no licence was found for example.org/a v1"},
		{raw, lib + "-", "no such file"},
		{raw[:100], "", "unexpected EOF"},
	} {
		expect(t, c.want, sbom(strings.NewReader(c.text), &plain, "x", c.library, "1"), c.want)
	}
}

func TestLicenceTexts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string
		dirs  []string
		want  string
		texts int
	}{
		{"at the root", map[string]string{"LICENSE": "x"}, []string{"."}, "", 1},
		{"spelt otherwise, with a notice", map[string]string{"Licence.txt": "x", "NOTICE": "y", "LICENSE-3RD-PARTY.md": "z"}, []string{"."}, "", 3},
		{"a linked folder with its own", map[string]string{"COPYING": "x", "a/b/LICENSE": "y", "c/LICENSE": "of what is not linked"}, []string{".", "a/b"}, "", 2},
		{"none", map[string]string{"README": "MIT"}, []string{"."}, "has no licence in its folder", 0},
		{"a notice alone", map[string]string{"NOTICE": "x", "PATENTS": "x"}, []string{"."}, "has no licence in its folder", 0},
		{"a sub-folder alone", map[string]string{"a/LICENSE": "x"}, []string{"a"}, "has no licence in its folder", 0},
		{"code with such a name", map[string]string{"license.go": "package x"}, []string{"."}, "has no licence in its folder", 0},
		{"far too long", map[string]string{"LICENSE": strings.Repeat("x", maxText+1)}, []string{"."}, "which no licence has", 0},
	} {
		s := source{title: "example.org/m v1", root: t.TempDir(), dirs: map[string]bool{}}
		for name, text := range c.files {
			put(t, filepath.Join(s.root, name), text)
		}
		for _, d := range c.dirs {
			s.dirs[filepath.Join(s.root, d)] = true
		}
		expect(t, c.name, s.read(), c.want)
		if c.want == "" && len(s.texts) != c.texts {
			t.Errorf("%s: %d texts, wants %d: %v", c.name, len(s.texts), c.texts, s.texts)
		}
	}
}

// TestWrite: a text that two share is there once, under both names, and the order does
// not depend on that of a map.
func TestWrite(t *testing.T) {
	t.Parallel()
	sources := map[string]*source{
		"b": {title: "b v1", texts: map[string]string{"LICENSE": "shared\n"}},
		"a": {title: "a v1", texts: map[string]string{"LICENSE": "shared\n", "NOTICE": "of a\n"}},
	}
	var first bytes.Buffer
	for range 20 {
		var out bytes.Buffer
		if err := write(&out, sources); err != nil {
			t.Fatal(err)
		}
		if first.Len() == 0 {
			first = out
		}
		if out.String() != first.String() {
			t.Fatal("two runs differ")
		}
	}
	if s := first.String(); strings.Count(s, "\nshared\n") != 1 || !strings.Contains(s, "a v1, LICENSE\nb v1, LICENSE\n") || !strings.Contains(s, "\nof a\n") {
		t.Errorf("wrong: %s", s)
	}
	sources["a"].texts["COPYING"] = strings.Repeat("x", maxTexts)
	expect(t, "too much", write(&first, sources), "licence texts have")
}

// TestLicences reads a real program, the smallest one.
func TestLicences(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "fulmar")
	build(t, "../..", []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"}, "go", "build", "-o", program, "./cmd/fulmar")
	var out bytes.Buffer
	if err := licences(&out, "../ort", []string{program}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  github.com/google/go-tpm v", "  The Go standard library", "  ONNX Runtime", "Copyright 2009 The Go Authors", "Copyright (c) Microsoft Corporation", "go.etcd.io/bbolt v1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not among the texts", want)
		}
	}
	if strings.Contains(out.String(), "modernc.org/sqlite") {
		t.Error("the texts of what it does not link are there")
	}
	expect(t, "no texts of ONNX Runtime", licences(&out, t.TempDir(), []string{program}), "ONNX Runtime (libonnxruntime.so.1), beside the worker has no licence")
	expect(t, "not a Go program", licences(&out, "../ort", []string{"/bin/sh"}), "read what it was built of")
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"static", "arm64"}, {"sbom", "x", "y"}, {"pack", "x", "y"}} {
		if err := run(args, strings.NewReader(""), &bytes.Buffer{}); err == nil {
			t.Errorf("%v is taken", args)
		}
	}
	expect(t, "static", run([]string{"static", "arm64", "/none"}, nil, nil), "/none: ")
}
