// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trttest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An Option changes what [Double] makes.
type Option func(*config)

type config struct {
	version       string
	suffix        int // of the files' names
	noParser      bool
	noDriver, rtx bool
	oldDriver     bool
}

// Version is the version the library says it has, "8.5.2"; by default 8.6.1, 10.3.0 or
// 11.1.0.
func Version(v string) Option { return func(c *config) { c.version = v } }

// WithoutParser leaves libnvonnxparser out.
func WithoutParser() Option { return func(c *config) { c.noParser = true } }

// WithoutDriver leaves libcuda out.
func WithoutDriver() Option { return func(c *config) { c.noDriver = true } }

// OldDriver leaves out what drivers before CUDA 11.4 do not have:
// cuGraphInstantiateWithFlags.
func OldDriver() Option { return func(c *config) { c.oldDriver = true } }

// UnknownMajor makes a library of a major version that nobody knows.
func UnknownMajor(major int) Option {
	return func(c *config) { c.version, c.suffix = fmt.Sprintf("%d.0.0", major), major }
}

// RTX makes TensorRT for RTX 1.7.1, which has the slots of major 11.
func RTX() Option {
	return func(c *config) { c.rtx, c.version, c.suffix = true, "1.7.1", 1 }
}

// Double compiles the double for a major version (8, 10 or 11) and gives a folder that
// holds it under the names of the real libraries. Each folder has a copy of its own, and
// so, once opened, a state of its own. The compiler is CC of the environment, or cc.
func Double(tb testing.TB, major int, options ...Option) string {
	tb.Helper()
	c := config{suffix: major, version: map[int]string{8: "8.6.1", 10: "10.3.0", 11: "11.1.0"}[major]}
	for _, o := range options {
		o(&c)
	}
	lib, err := os.ReadFile(object(tb, major, &c))
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	infer, parser := fmt.Sprintf("libnvinfer.so.%d", c.suffix), fmt.Sprintf("libnvonnxparser.so.%d", c.suffix)
	if c.rtx {
		infer, parser = "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"
	}
	if err := os.WriteFile(filepath.Join(dir, infer), lib, 0o700); err != nil {
		tb.Fatal(err)
	}
	for name, left := range map[string]bool{parser: c.noParser, "libcuda.so.1": c.noDriver} {
		if left {
			continue
		}
		if err := os.Symlink(infer, filepath.Join(dir, name)); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// number is a version as getInferLibVersion gives it.
func number(tb testing.TB, version string) int {
	tb.Helper()
	var a, b, c int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &a, &b, &c); err != nil {
		tb.Fatalf("version %q is none: %v", version, err)
	}
	if a == 8 {
		return a*1000 + b*100 + c
	}
	return a*10000 + b*100 + c
}

// object compiles the double, or finds it compiled from the same sources before.
func object(tb testing.TB, major int, c *config) string {
	tb.Helper()
	dir, err := root()
	if err != nil {
		tb.Fatal(err)
	}
	trt := filepath.Join(dir, "inference", "trt")
	sources := glob(tb, filepath.Join(trt, "trttest", "double", "*.c"))
	sources = append(sources, glob(tb, filepath.Join(trt, "kernel", "src", "*.c"))...)
	all := append(glob(tb, filepath.Join(trt, "trttest", "double", "*.h")), filepath.Join(trt, "tables.h"))
	all = append(append(all, glob(tb, filepath.Join(trt, "kernel", "src", "*.h"))...), sources...)
	rtx := 0
	if c.rtx {
		rtx = 1
	}
	args := append(compiler(), "-shared", "-std=c11", "-D_GNU_SOURCE", "-O2", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
		"-Wl,-Bsymbolic", fmt.Sprintf("-DDOUBLE_MAJOR=%d", major), fmt.Sprintf("-DDOUBLE_VERSION=%d", number(tb, c.version)), fmt.Sprintf("-DDOUBLE_RTX=%d", rtx))
	if c.oldDriver {
		args = append(args, "-DDOUBLE_OLD_DRIVER")
	}
	h := sha256.New()
	fmt.Fprintln(h, args)
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintln(h, f, len(b))
		h.Write(b)
	}
	done := filepath.Join(cache(tb, dir), hex.EncodeToString(h.Sum(nil)[:12])+".so")
	now := time.Now()
	if os.Chtimes(done, now, now) == nil { // it is there, and stays another day
		return done
	}
	part := filepath.Join(tb.TempDir(), "double.so")
	args = append(append(args, "-o", part), append(sources, "-lm", "-lpthread", "-ldl")...)
	if out, err := exec.CommandContext(tb.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		tb.Fatalf("the double does not compile: %s: %v\n%s", args[0], err, out)
	}
	keep(part, done)
	return part
}

// keep leaves a copy for later test runs. A folder that cannot be written costs them
// time and nothing else.
func keep(from, to string) {
	b, err := os.ReadFile(from)
	if err != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(to), "part")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err != nil || cerr != nil || os.Rename(f.Name(), to) != nil {
		os.Remove(f.Name())
	}
}

// cache is where compiled doubles lie, by what they were made of. Those of other days go:
// not younger ones, which another test process may be about to read.
func cache(tb testing.TB, root string) string {
	tb.Helper()
	dir := filepath.Join(root, ".cache", "double")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return tb.TempDir()
	}
	all, _ := filepath.Glob(filepath.Join(dir, "*")) // the pattern is sound
	for _, f := range all {
		if st, err := os.Stat(f); err == nil && time.Since(st.ModTime()) > 24*time.Hour {
			os.Remove(f)
		}
	}
	return dir
}

func compiler() []string {
	if cc := strings.Fields(os.Getenv("CC")); len(cc) > 0 {
		return cc
	}
	return []string{"cc"}
}

func glob(tb testing.TB, pattern string) []string {
	tb.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// root is the repository's folder.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("no go.mod above the test's folder: the double's sources cannot be found")
		}
		dir = filepath.Dir(dir)
	}
}
