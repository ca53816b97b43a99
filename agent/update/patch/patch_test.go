// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/ota/delta"
	maker "fulmar/ota/delta/make"
	"fulmar/ota/release"
)

// roleEnv makes of this test's own program who gets killed while its child works, or who
// wants too much. The child is fulmard's own, see fulmard.
const roleEnv = "FULMAR_TEST_PATCH"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "parent":
		fmt.Println(Apply(context.Background(), os.Args[3], delta.Zstd, "", os.Args[1], os.Args[2], object([]byte("x"))))
		os.Exit(1)
	case "greedy":
		greedy()
		os.Exit(0)
	}
	code := m.Run()
	_ = os.RemoveAll(built().dir)
	os.Exit(code)
}

type program struct {
	dir, path string
	err       error
}

// built is fulmard as boards have it: without cgo, whose threads and heaps take most of what a
// child may have.
var built = sync.OnceValue(func() program {
	dir, err := os.MkdirTemp("", "fulmard")
	if err != nil {
		return program{err: err}
	}
	p := program{dir: dir, path: filepath.Join(dir, "fulmard")}
	cmd := exec.Command("go", "build", "-o", p.path, "fulmar/cmd/fulmard")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.err = fmt.Errorf("%w: %s", err, out)
	}
	return p
})

func fulmard(t *testing.T) string {
	t.Helper()
	if b := built(); b.err != nil {
		t.Fatal(b.err)
	}
	return built().path
}

// greedy wants twice what it may have.
func greedy() {
	if err := bound(); err != nil {
		os.Exit(3)
	}
	var kept [][]byte
	for range 2 * maxData >> 20 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
	fmt.Println(len(kept))
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

func object(b []byte) release.Object {
	o, _, err := release.Describe(bytes.NewReader(b))
	if err != nil {
		panic(err)
	}
	return o
}

// pair is a file, what becomes of it, and the patch.
type pair struct {
	base, patch, out string
	text             []byte
	want             release.Object
}

func newPair(t *testing.T, codec string, size int) *pair {
	t.Helper()
	dir := t.TempDir()
	p := &pair{base: filepath.Join(dir, "base"), patch: filepath.Join(dir, "patch"), out: filepath.Join(dir, "out"), text: make([]byte, size)}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range p.text {
		p.text[i] = byte(r.Uint32())
	}
	old := bytes.Clone(p.text)
	copy(p.text[size/2:], "another text")
	p.want = object(p.text)
	of := func(b []byte) *io.SectionReader { return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))) }
	base := of(old)
	if codec == delta.Zstd {
		base = nil
	}
	made, err := maker.Make(t.Context(), codec, base, of(p.text))
	if err == nil {
		err = errors.Join(os.WriteFile(p.base, old, 0o600), os.WriteFile(p.patch, made.Bytes, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) gone(t *testing.T) {
	t.Helper()
	if _, err := os.Lstat(p.out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left at %s: %v", p.out, err)
	}
}

// TestApply: the child makes the file, within its bounds.
func TestApply(t *testing.T) {
	t.Parallel()
	for _, codec := range []string{delta.BSDiff, delta.Zstd} {
		p := newPair(t, codec, 2<<20)
		base := p.base
		if codec == delta.Zstd {
			base = ""
		}
		if err := Apply(t.Context(), fulmard(t), codec, base, p.patch, p.out, p.want); err != nil {
			t.Fatalf("%s: %v", codec, err)
		}
		if got, err := os.ReadFile(p.out); err != nil || !bytes.Equal(got, p.text) {
			t.Errorf("%s: %d bytes, %v", codec, len(got), err)
		}
	}
}

// TestFaults: each fault comes back as what it is, and nothing is left.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(p *pair) (codec string, err error)
		want  error
	}{
		"a base that changed": {func(p *pair) (string, error) { return delta.BSDiff, change(p.base, 1000) }, delta.ErrBase},
		"a base that is longer": {func(p *pair) (string, error) {
			b, err := os.ReadFile(p.base)
			return delta.BSDiff, errors.Join(err, os.WriteFile(p.base, append(b, 0), 0o600))
		}, delta.ErrBase},
		"a base that is gone":   {func(p *pair) (string, error) { return delta.BSDiff, os.Remove(p.base) }, nil},
		"a patch of no form":    {func(p *pair) (string, error) { return delta.BSDiff, os.WriteFile(p.patch, []byte("no patch"), 0o600) }, delta.ErrPatch},
		"an empty patch":        {func(p *pair) (string, error) { return delta.BSDiff, os.WriteFile(p.patch, nil, 0o600) }, delta.ErrPatch},
		"a patch that is gone":  {func(p *pair) (string, error) { return delta.BSDiff, os.Remove(p.patch) }, nil},
		"a patch for another":   {func(p *pair) (string, error) { p.want.SHA256[0] ^= 1; return delta.BSDiff, nil }, delta.ErrMismatch},
		"a patch of another":    {func(*pair) (string, error) { return delta.ELF, nil }, delta.ErrPatch},
		"a patch that is large": {func(p *pair) (string, error) { return delta.BSDiff, os.Truncate(p.patch, 1<<20) }, delta.ErrLimit},
		"an unknown codec":      {func(*pair) (string, error) { return "lzma", nil }, delta.ErrCodec},
		"a file that is there":  {func(p *pair) (string, error) { return delta.BSDiff, os.WriteFile(p.out, []byte("x"), 0o600) }, nil},
		"a folder that is gone": {func(p *pair) (string, error) { p.out += "/none"; return delta.BSDiff, os.Remove(p.base) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, delta.BSDiff, 64<<10)
			codec, err := c.spoil(p)
			if err != nil {
				t.Fatal(err)
			}
			err = Apply(t.Context(), fulmard(t), codec, p.base, p.patch, p.out, p.want)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, wants %v", err, c.want)
			}
			p.gone(t)
		})
	}
	p := newPair(t, delta.BSDiff, 1000)
	for _, program := range []string{"", filepath.Join(t.TempDir(), "none")} {
		if err := Apply(t.Context(), program, delta.BSDiff, p.base, p.patch, p.out, p.want); err == nil {
			t.Errorf("by the program %q", program)
		}
	}
}

func change(path string, at int) error {
	b, err := os.ReadFile(path)
	if err == nil {
		b[at] ^= 1
		err = os.WriteFile(path, b, 0o600)
	}
	return err
}

// TestExits: each fault has one exit code, by which the parent knows it again.
func TestExits(t *testing.T) {
	t.Parallel()
	for code, err := range exits() {
		if code < 3 || code > 125 {
			t.Errorf("%v: exit code %d is another's", err, code)
		}
	}
	h := &head{}
	for range 3 {
		if n, err := h.Write(bytes.Repeat([]byte("x"), 300)); n != 300 || err != nil {
			t.Error(n, err)
		}
	}
	if len(h.b) != maxSaid {
		t.Errorf("%d bytes of what it said are kept", len(h.b))
	}
	if code := Child(t.Context(), []string{"zstd"}, io.Discard); code != 1 {
		t.Errorf("without its arguments: exit code %d", code)
	}
}

// hang makes the patch a pipe that nobody writes to: the child waits for it once it has its
// bounds.
func (p *pair) hang(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.Remove(p.patch), unix.Mkfifo(p.patch, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// childOf finds the child of a process that makes a file, once it waits in a system call with
// its bounds set.
func childOf(t *testing.T, parent int, out string) int {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
		for _, l := range lists {
			b, _ := os.ReadFile(l)
			for _, f := range strings.Fields(string(b)) {
				args, _ := os.ReadFile("/proc/" + f + "/cmdline")
				limits, _ := os.ReadFile("/proc/" + f + "/limits")
				if a := strings.Split(string(args), "\x00"); len(a) > 5 && a[1] == Word && a[5] == out && strings.Contains(string(limits), strconv.Itoa(maxData)) {
					pid, _ := strconv.Atoi(f)
					return pid
				}
			}
		}
	}
	t.Fatal("no child comes")
	return 0
}

// ended waits until a process is gone, or a body that waits for its funeral.
func ended(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if _, state, _ := strings.Cut(string(b), ") "); err != nil || strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
			return
		}
	}
	t.Errorf("process %d goes on", pid)
}

// TestBounds: the child is bounded in memory and time by the kernel, leaves no core, and all
// of its threads give way to others. It ends with who asked, and leaves nothing.
func TestBounds(t *testing.T) {
	t.Parallel()
	p := newPair(t, delta.Zstd, 1000)
	p.hang(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Apply(ctx, fulmard(t), delta.Zstd, "", p.patch, p.out, p.want) }()
	pid := childOf(t, os.Getpid(), p.out)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"Max data size": maxData, "Max cpu time": maxCPU, "Max core file size": 0} {
		_, line, _ := strings.Cut(string(limits), name)
		f := strings.Fields(line)
		if w := strconv.Itoa(want); len(f) < 2 || f[0] != w || f[1] != w {
			t.Errorf("%s: %v, wants %s", name, f[:min(2, len(f))], w)
		}
	}
	nice := func() (all []int) {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || len(tasks) == 0 {
			t.Fatal(err)
		}
		for _, task := range tasks {
			id, _ := strconv.Atoi(task.Name())
			if n, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil {
				all = append(all, 20-n) // as the system call tells it
			}
		}
		return all
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all := nice()
		if !slices.ContainsFunc(all, func(n int) bool { return n < niceness }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads of priorities %v, wants %d", all, niceness)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ended(t, pid)
	p.gone(t)
}

// TestTime: a deadline ends it.
func TestTime(t *testing.T) {
	t.Parallel()
	p := newPair(t, delta.Zstd, 1000)
	p.hang(t)
	_ = fulmard(t) // made before the time runs
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := Apply(ctx, fulmard(t), delta.Zstd, "", p.patch, p.out, p.want); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	p.gone(t)
}

// TestGreedy: who wants more memory than it may have ends, and takes nobody along.
func TestGreedy(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(self())
	cmd.Env = []string{roleEnv + "=greedy"}
	out, err := cmd.CombinedOutput()
	// The runtime has many ways to find that there is none, and with cgo threads do, too; the
	// race detector ends with 66.
	var ended *exec.ExitError
	if !errors.As(err, &ended) || !slices.Contains([]int{2, -1, 66}, ended.ExitCode()) {
		t.Errorf("%v: %.300s", err, out)
	}
}

// TestParentKilled: the child is gone with the one that started it, however that ended.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	p := newPair(t, delta.Zstd, 1000)
	p.hang(t)
	parent := exec.Command(self(), p.patch, p.out, fulmard(t))
	parent.Env = []string{roleEnv + "=parent"}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := childOf(t, parent.Process.Pid, p.out)
	if err := parent.Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = parent.Wait()
	ended(t, pid)
	p.gone(t)
}
