// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// released are programs of others: package, and versions that follow each other.
var released = []struct {
	name, pkg string
	versions  []string
}{
	{"nats-server", "github.com/nats-io/nats-server/v2", []string{"v2.12.0", "v2.12.1", "v2.12.2"}},
	{"nats-server, two minors", "github.com/nats-io/nats-server/v2", []string{"v2.11.9", "v2.12.2"}},
	{"node_exporter", "github.com/prometheus/node_exporter", []string{"v1.9.0", "v1.9.1"}},
	{"caddy", "github.com/caddyserver/caddy/v2/cmd/caddy", []string{"v2.10.1", "v2.10.2"}},
}

// programs builds pairs of them for arm64, stripped, if only is in their name.
func programs(cache, only string) (pairs []pair) {
	for _, r := range released {
		last := ""
		if !strings.Contains(r.name+" "+strings.Join(r.versions, " to "), only) {
			continue
		}
		for i, v := range r.versions {
			file := filepath.Join(cache, filepath.Base(r.pkg)+"-"+strings.ReplaceAll(r.pkg, "/", "-")+"@"+v)
			if err := install(cache, r.pkg+"@"+v, file); err != nil {
				fmt.Printf("left out: %s %s: %v\n", r.name, v, err)
				break
			}
			if i > 0 {
				pairs = append(pairs, pair{r.name + " " + r.versions[i-1] + " to " + v + ", arm64", last, file})
			}
			last = file
		}
	}
	return pairs
}

// install builds one version outside of this module, once.
func install(cache, pkg, file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	dir, err := os.MkdirTemp(cache, "build")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	modcache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags", "-s -w", pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64", "GOFLAGS=-p=1", "GOBIN=", "GOPATH="+dir, "GOMODCACHE="+strings.TrimSpace(string(modcache)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, lastLine(out))
	}
	built, err := filepath.Glob(filepath.Join(dir, "bin", "*", "*"))
	if err != nil || len(built) != 1 {
		return fmt.Errorf("no program was built: %w", err)
	}
	return os.Rename(built[0], file)
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// fulmards builds this repository's agent: as it is, with a line more in a package of
// it and another release, and as it was some commits ago.
func fulmards(cache, only string) (pairs []pair) {
	if only != "" && !strings.HasPrefix(only, "fulmard") {
		return nil
	}
	now, err := fulmard(cache, ".", "fulmard-now", "1.0.0")
	if err != nil {
		fmt.Printf("left out: fulmard: %v\n", err)
		return nil
	}
	if next, err := fulmard(cache, ".", "fulmard-fix", "1.0.1", "-overlay", filepath.Join(cache, "fix.json")); err != nil {
		fmt.Printf("left out: fulmard with a fix: %v\n", err)
	} else {
		pairs = append(pairs, pair{"fulmard with a small fix and another release, arm64", now, next})
	}
	for _, back := range []string{"10", "40"} {
		dir := filepath.Join(cache, "then")
		then, err := checkout(cache, dir, "HEAD~"+back)
		if err == nil {
			then, err = fulmard(cache, dir, "fulmard-then-"+back, "0.9.0")
		}
		if err != nil {
			fmt.Printf("left out: fulmard %s commits ago: %v\n", back, err)
			continue
		}
		pairs = append(pairs, pair{"fulmard, " + back + " commits, arm64", then, now})
	}
	return pairs
}

// checkout puts an old version of the repository into dir.
func checkout(cache, dir, rev string) (string, error) {
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tar := filepath.Join(cache, "then.tar")
	if out, err := exec.Command("git", "archive", "-o", tar, rev).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, lastLine(out))
	}
	out, err := exec.Command("tar", "-xf", tar, "-C", dir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, lastLine(out))
	}
	return dir, os.Remove(tar)
}

// fulmard builds the agent in dir for arm64. The overlay fix.json has a line more in
// a function of package agent.
func fulmard(cache, dir, name, release string, args ...string) (string, error) {
	return build(cache, dir, "arm64", name, release, args...)
}

func build(cache, dir, arch, name, release string, args ...string) (string, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := overlay(cache, root); err != nil {
		return "", err
	}
	file := filepath.Join(cache, name)
	cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.release=" + release, "-o", file}, args...), "./cmd/fulmard")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-p=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, lastLine(out))
	}
	return file, nil
}

// overlay writes fix.json, a small change of fulmard, and probe.json, which links
// package delta into it.
func overlay(cache, root string) error {
	main := filepath.Join(root, "cmd/fulmard/main.go")
	src, err := os.ReadFile(main)
	if err != nil {
		return err
	}
	const begin = "func main() {\n"
	fixed := bytes.Replace(src, []byte(begin), []byte(begin+"\tfor i, a := range os.Args {\n\t\tif len(a) > 4096 {\n\t\t\tfmt.Fprintln(os.Stderr, \"argument\", i, \"is too long:\", len(a))\n\t\t\tos.Exit(2)\n\t\t}\n\t}\n"), 1)
	if bytes.Equal(fixed, src) {
		return fmt.Errorf("cmd/fulmard/main.go has no main to change")
	}
	const probe = `package main

import (
	"context"
	"io"
	"os"

	"fulmar/ota/delta"
)

func init() {
	if len(os.Args) == 99 {
		s := io.NewSectionReader(os.Stdin, 0, 1)
		info, err := delta.Peek(s)
		println(info.Codec, err)
		println(delta.Apply(context.Background(), os.Args[1], s, s, info.Out, delta.Limits{}, os.Stdout))
	}
}
`
	for name, b := range map[string][]byte{
		"fix.go": fixed, "probe.go": []byte(probe),
		"fix.json":   fmt.Appendf(nil, `{"Replace": {%q: %q}}`, main, filepath.Join(cache, "fix.go")),
		"probe.json": fmt.Appendf(nil, `{"Replace": {%q: %q}}`, filepath.Join(root, "cmd/fulmard/probe.go"), filepath.Join(cache, "probe.go")),
	} {
		if err := os.WriteFile(filepath.Join(cache, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// growth prints what package delta adds to fulmard.
func growth(cache string) error {
	for _, arch := range []string{"arm64", "amd64"} {
		var size [2]int64
		for i, args := range [][]string{nil, {"-overlay", filepath.Join(cache, "probe.json")}} {
			file, err := build(cache, ".", arch, "fulmard-size", "1.0.0", args...)
			if err != nil {
				fmt.Printf("left out: growth of fulmard: %v\n", err)
				return nil
			}
			st, err := os.Stat(file)
			if err != nil {
				return err
			}
			size[i] = st.Size()
		}
		fmt.Printf("\nfulmard %s: %d bytes, with package delta %d: %d more\n", arch, size[0], size[1], size[1]-size[0])
	}
	return nil
}
