// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"fulmar/tests/packages/root"
	"fulmar/tests/vm"
)

const (
	top   = "../.."
	cache = top + "/.cache"
)

// The versions that are installed over each other. Each has a fulmard of its own, which
// says its version; the rest is what make cross built.
const (
	v1 = "1.0.0"
	v2 = "1.1.0"
	// vConf has another /etc/fulmar/fulmard.yaml.
	vConf = "1.2.0"
)

var names = []string{"fulmar", "fulmar-agent", "fulmar-fleet"}

// TestMain makes the packages once, as that is most of the time.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fulmar-packages-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	made.dir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// made is the folder of packages and how their making went.
var made struct {
	dir  string
	once sync.Once
	err  error
}

// skip skips, but not where make test-packages asks for these tests.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("FULMAR_PACKAGES") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// debs gives the folder with the packages of all versions, for amd64.
func debs(t *testing.T) string {
	t.Helper()
	if os.Getenv("FULMAR_PACKAGES") == "" {
		t.Skip("type make test-packages: it takes minutes")
	}
	if os.Getuid() != 0 {
		skip(t, "needs root")
	}
	for _, f := range []string{"cross/amd64/fulmar-launch", "cross/amd64/fulmar-infer", "man/fulmard.8", "completions/bash/fulmar"} {
		if _, err := os.Stat(filepath.Join(top, "out", f)); err != nil {
			skip(t, "needs what make packages makes: "+f)
		}
	}
	made.once.Do(func() { made.err = makeDebs(made.dir) })
	if made.err != nil {
		t.Fatal(made.err)
	}
	return made.dir
}

func makeDebs(dir string) error {
	conf, err := repackable(dir)
	if err != nil {
		return err
	}
	for _, v := range []string{v1, v2} {
		if err := makeVersion(dir, top, v, "amd64"); err != nil {
			return err
		}
	}
	return makeVersion(dir, conf, vConf, "amd64")
}

// makeVersion packs a version; from is the checkout whose packaging is used.
func makeVersion(dir, from, version, arch string) error {
	programs := filepath.Join(dir, "programs", version, arch)
	if err := os.MkdirAll(programs, 0o755); err != nil {
		return err
	}
	for _, p := range []string{"fulmar", "fulmar-fleet", "fulmar-infer", "fulmar-launch", "fulmar-rootfs", "libonnxruntime.so.1"} {
		if err := clone(filepath.Join(top, "out/cross", arch, p), filepath.Join(programs, p)); err != nil {
			return err
		}
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -X main.release="+version, "-o", filepath.Join(programs, "fulmard"), "./cmd/fulmard")
	build.Dir = top
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch, "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build fulmard %s: %w: %s", version, err, out)
	}
	return pack(from, programs, arch, version, filepath.Join(dir, "debs"))
}

func pack(from, programs, arch, version, out string) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(top)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(from, "cross/package/build"), programs, arch, out)
	cmd.Env = append(os.Environ(), "RELEASE="+version, "SOURCE_DATE_EPOCH=1790000000", "COMPRESSION=none",
		"MAN="+abs+"/out/man", "COMPLETIONS="+abs+"/out/completions", "LICENSES="+abs+"/out/cross/THIRD-PARTY-LICENSES.txt", "BILLS="+abs+"/out/cross")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pack %s: %w: %s", version, err, b)
	}
	return nil
}

// repackable is a copy of what packing reads of the checkout, with another config for
// boards in it.
func repackable(dir string) (string, error) {
	to := filepath.Join(dir, "checkout")
	for _, f := range []string{"cross/package", "cross/systemd", "docs/install.md", "docs/keys.md", "docs/enrolment.md", "docs/local.md", "docs/signers", "agent/config/defaults.yaml", "CHANGELOG.md", "go.mod", "tools.mod", "tools.sum"} {
		if err := os.MkdirAll(filepath.Join(to, filepath.Dir(f)), 0o755); err != nil {
			return "", err
		}
		if out, err := exec.Command("cp", "-r", filepath.Join(top, f), filepath.Join(to, f)).CombinedOutput(); err != nil {
			return "", fmt.Errorf("copy %s: %w: %s", f, err, out)
		}
	}
	f, err := os.OpenFile(filepath.Join(to, "cross/package/agent/fulmard.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	if _, err := f.WriteString("# A line of a new version.\n"); err != nil {
		return "", err
	}
	return to, f.Close()
}

// clone makes a second name of a file, or a copy where that is another disk.
func clone(from, to string) error {
	if err := os.Link(from, to); err == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// board is a Debian system with the packages in /debs.
type board struct {
	*root.Root
	t *testing.T
}

// diskMiB is a layer with room for everything twice.
const diskMiB = 1024

// newBoard is a fresh system of a suite.
func newBoard(t *testing.T, suite string) *board {
	t.Helper()
	if _, err := exec.LookPath("debootstrap"); err != nil {
		skip(t, "needs debootstrap; type: cross/need debootstrap")
	}
	dir := debs(t)
	base, err := vm.Root(t.Context(), cache, suite, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	b := over(t, base, diskMiB)
	// A folder of the host that is seen in the system; nothing of it is copied.
	at := filepath.Join(b.Dir, "debs")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	b.bind(filepath.Join(dir, "debs"), at)
	return b
}

// over is a board on a layer over base.
func over(t *testing.T, base string, mib int) *board {
	t.Helper()
	r, err := root.Mount(base, t.TempDir(), mib)
	return laid(t, r, err)
}

func laid(t *testing.T, r *root.Root, err error) *board {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return &board{Root: r, t: t}
}

func (b *board) bind(from, to string) {
	b.t.Helper()
	if out, err := exec.Command("mount", "--bind", "-o", "ro", from, to).CombinedOutput(); err != nil {
		b.t.Fatalf("mount: %v: %s", err, out)
	}
	b.t.Cleanup(func() { _ = exec.Command("umount", "-l", to).Run() })
}

// run wants a command to go well and gives what it said.
func (b *board) run(args ...string) string {
	b.t.Helper()
	out, err := b.Run(b.t.Context(), args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// fails wants a command to go wrong and to say each of words.
func (b *board) fails(words []string, args ...string) {
	b.t.Helper()
	out, err := b.Run(b.t.Context(), args...)
	if err == nil {
		b.t.Errorf("%v went well: %s", args, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			b.t.Errorf("%v says %q, wants %q in it", args, out, w)
		}
	}
}

func deb(name, version string) string { return "/debs/" + name + "_" + version + "_amd64.deb" }

// all are the three packages of a version.
func all(version string) []string {
	var out []string
	for _, n := range names {
		out = append(out, deb(n, version))
	}
	return out
}

// runs wants the programs of a version to be what runs, out of a whole slot.
func (b *board) runs(version string) {
	b.t.Helper()
	if got, want := strings.TrimSpace(b.run("fulmard", "version")), "fulmard "+version; !strings.HasPrefix(got, want) {
		b.t.Errorf("what runs says %q, wants %q", got, want)
	}
	if out, err := b.Run(b.t.Context(), "/usr/lib/fulmar/fulmar-launch", "status", "--verify"); err != nil {
		b.t.Errorf("the slot is not whole: %v %s", err, out)
	}
	// The others are the same in all versions, and --verify has read them.
	if got, want := sum(b.t, filepath.Join(b.slot(), "fulmard")), sum(b.t, filepath.Join(made.dir, "programs", version, "amd64/fulmard")); got != want {
		b.t.Errorf("fulmard of the slot that runs is not that of %s", version)
	}
}

// slot is the folder of the slot that runs.
func (b *board) slot() string {
	b.t.Helper()
	link, err := os.Readlink(filepath.Join(b.Dir, "var/lib/fulmar/current"))
	if err != nil {
		b.t.Fatal(err)
	}
	return filepath.Join(b.Dir, "var/lib/fulmar", link)
}

func (b *board) write(path, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.Dir, path), []byte(text), 0o640); err != nil {
		b.t.Fatal(err)
	}
}

func (b *board) read(path string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Dir, path))
	if err != nil {
		b.t.Error(err)
	}
	return string(text)
}

func (b *board) gone(paths ...string) {
	b.t.Helper()
	for _, p := range paths {
		if _, err := os.Lstat(filepath.Join(b.Dir, p)); err == nil {
			b.t.Errorf("%s is still there", p)
		}
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
