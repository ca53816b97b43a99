// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command delta measures the patches of over-the-air updates against other tools:
// bytes, and what making and applying them costs.
//
//	go run ./tests/bench/delta
//
// It builds real Go programs for arm64 from the module proxy and from this repository,
// once, into .cache/delta (Debian: xdelta3 bsdiff zstd time), and makes variants of the repository's model. What cannot
// be had, a tool or the network, is left out with one line.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fulmar/ota/delta"
	maker "fulmar/ota/delta/make"
)

// pair is two files that one patch lies between.
type pair struct{ name, base, next string }

func main() {
	cache := flag.String("cache", ".cache/delta", "folder for what was built")
	only := flag.String("only", "", "only pairs with this in their name, or growth")
	apply := flag.Bool("apply", false, "apply CODEC BASE PATCH OUT NEXT and tell the memory (for this program itself)")
	flag.Parse()
	log.SetFlags(0)
	if *apply {
		if err := child(flag.Args()); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := run(*cache, *only); err != nil {
		log.Fatal(err)
	}
}

func run(cache, only string) error {
	cache, err := filepath.Abs(cache)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	fmt.Printf("patches: %d cores, load %s, %s, %s; bytes, and in percent of the whole file by zstd (klauspost, best); CPU seconds and MB of RSS\n",
		runtime.NumCPU(), load(), runtime.Version(), time.Now().Format(time.DateOnly))
	pairs := append(programs(cache, only), fulmards(cache, only)...)
	m, err := models(cache)
	if err != nil {
		return err
	}
	for _, p := range append(pairs, m...) {
		if !strings.Contains(p.name, only) {
			continue
		}
		if err := measure(cache, p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if !strings.Contains("growth", only) {
		return nil
	}
	return growth(cache)
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil || len(b) == 0 {
		return "unknown"
	}
	return strings.Fields(string(b))[0]
}

// cost is what a child process took.
type cost struct {
	cpu float64
	rss float64 // MB
}

func (c cost) String() string { return fmt.Sprintf("%.2f s, %.0f MB", c.cpu, c.rss) }

// measured runs a command below time(1): the kernel counts the memory of who started
// a process as the process's own.
func measured(cmd *exec.Cmd) (cost, error) {
	var errs bytes.Buffer
	t := exec.Command("time", append([]string{"-q", "-f", "%U %S %M", cmd.Path}, cmd.Args[1:]...)...)
	t.Stderr = &errs
	if err := t.Run(); err != nil {
		return cost{}, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(errs.String()))
	}
	var user, sys, kb float64
	if _, err := fmt.Sscanf(lastLine(errs.Bytes()), "%f %f %f", &user, &sys, &kb); err != nil {
		return cost{}, fmt.Errorf("time(1): %w", err)
	}
	return cost{user + sys, kb / 1e3}, nil
}

// measure prints the table of one pair.
func measure(cache string, p pair) error {
	st, err := os.Stat(p.next)
	if err != nil {
		return err
	}
	base, err := os.ReadFile(p.base)
	if err != nil {
		return err
	}
	fmt.Printf("\n%s: %d to %d bytes\n\n| method | bytes | %% | make | apply |\n|---|---|---|---|---|\n", p.name, len(base), st.Size())
	full, isELF := 0, false
	for _, codec := range []string{delta.Zstd, delta.BSDiff, delta.ELF, delta.Words, maker.Auto} {
		if isELF && codec != delta.ELF {
			break // auto would take elf, and words is not for programs
		}
		patch, made, err := ours(codec, p)
		if err != nil {
			if codec == maker.Auto {
				return err
			}
			continue // not for such files
		}
		if codec == delta.Zstd {
			full = len(patch.Bytes)
		}
		isELF = isELF || codec == delta.ELF
		applied, err := applied(cache, p, patch)
		if err != nil {
			return err
		}
		name := codec
		if codec == maker.Auto {
			name += " (" + patch.Codec + ")"
		}
		fmt.Printf("| **%s** | %d | %.1f | %.1f s | %v |\n", name, len(patch.Bytes), percent(len(patch.Bytes), full), made, applied)
	}
	for _, t := range tools {
		size, made, applied, err := t.try(cache, p)
		if err != nil {
			fmt.Printf("| %s | left out: %v | | | |\n", t.name, err)
			continue
		}
		fmt.Printf("| %s | %d | %.1f | %v | %v |\n", t.name, size, percent(size, full), made, applied)
	}
	return nil
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(of) }

// ours makes a patch in this process and says how many CPU seconds that took.
func ours(codec string, p pair) (*maker.Patch, float64, error) {
	base, closeBase, err := open(p.base)
	if err != nil {
		return nil, 0, err
	}
	defer closeBase()
	next, closeNext, err := open(p.next)
	if err != nil {
		return nil, 0, err
	}
	defer closeNext()
	before := self()
	patch, err := maker.Make(context.Background(), codec, base, next)
	return patch, self() - before, err
}

func self() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func open(name string) (*io.SectionReader, func() error, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	return io.NewSectionReader(f, 0, st.Size()), f.Close, nil
}

// applied applies a patch in a child and compares what came out.
func applied(cache string, p pair, patch *maker.Patch) (cost, error) {
	file, out := filepath.Join(cache, "patch"), filepath.Join(cache, "out")
	if err := os.WriteFile(file, patch.Bytes, 0o644); err != nil {
		return cost{}, err
	}
	exe, err := os.Executable()
	if err != nil {
		return cost{}, err
	}
	c, err := measured(exec.Command(exe, "-apply", patch.Codec, p.base, file, out, strconv.FormatInt(patch.Out.Size, 10), fmt.Sprintf("%x", patch.Out.SHA256)))
	if err != nil {
		return c, err
	}
	return c, same(out, p.next)
}

func same(a, b string) error {
	x, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	y, err := os.ReadFile(b)
	if err != nil {
		return err
	}
	if sha256.Sum256(x) != sha256.Sum256(y) {
		return fmt.Errorf("%s is another file", a)
	}
	return nil
}

// child applies a patch; who started it looks at what that took.
func child(a []string) error {
	if len(a) != 6 {
		return fmt.Errorf("-apply CODEC BASE PATCH OUT SIZE SHA256")
	}
	base, _, err := open(a[1])
	if err != nil {
		return err
	}
	patch, _, err := open(a[2])
	if err != nil {
		return err
	}
	out, err := os.Create(a[3])
	if err != nil {
		return err
	}
	var want delta.Target
	if _, err := fmt.Sscanf(a[4], "%d", &want.Size); err != nil {
		return err
	}
	var sum []byte
	if _, err := fmt.Sscanf(a[5], "%x", &sum); err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("not a SHA-256: %s", a[5])
	}
	copy(want.SHA256[:], sum)
	if err := delta.Apply(context.Background(), a[0], base, patch, want, delta.Limits{}, out); err != nil {
		return err
	}
	return out.Close()
}
