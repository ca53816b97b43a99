// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/device"
	"fulmar/device/devicetest"
	"fulmar/schema"
)

func TestRootCannotBeLeft(t *testing.T) {
	t.Parallel()
	r := device.NewRoot("/sysroot/board")
	for p, want := range map[string]string{
		"sys/x":              "/sysroot/board/sys/x",
		"/sys/x":             "/sysroot/board/sys/x",
		"../../etc/shadow":   "/sysroot/board/etc/shadow",
		"sys/../../../../x":  "/sysroot/board/x",
		"":                   "/sysroot/board",
		"..":                 "/sysroot/board",
		"/../sysroot/board2": "/sysroot/board/sysroot/board2",
	} {
		if got := r.Path(p); got != want {
			t.Errorf("%q is %s, want %s", p, got, want)
		}
	}
	if got := device.NewRoot("").Path("../proc/stat"); got != "/proc/stat" {
		t.Errorf("got %s", got)
	}
}

// within fails the test where f does not return: the whole process would hang.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s still waits after 5 s", what)
	}
}

const oddTree = `
-- good --
48500
-- negative --
-392
-- off fifo --
-- broken dir --
-- empty --
-- words --
not available
-- model nul --
NVIDIA Orin Nano Developer Kit
`

func TestQualities(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, oddTree)
	for _, c := range []struct {
		file  string
		v     int64
		q     schema.Quality
		errno unix.Errno
	}{
		{"good", 48500, schema.QualityGood, 0},
		{"negative", -392, schema.QualityGood, 0},
		{"off", 0, schema.QualityOffline, unix.EAGAIN},
		{"broken", 0, schema.QualityError, unix.EISDIR},
		{"empty", 0, schema.QualityError, 0},
		{"words", 0, schema.QualityError, 0},
		{"missing", 0, schema.QualityOffline, unix.ENOENT},
		{"missing/too", 0, schema.QualityOffline, unix.ENOENT},
		{"good/inside", 0, schema.QualityError, unix.ENOTDIR},
	} {
		for _, f := range []*device.File{root.Attr(c.file), root.File(c.file)} {
			within(t, c.file, func() {
				for range 3 {
					if v, q := f.Int(); v != c.v || q != c.q || f.Errno() != c.errno {
						t.Errorf("%s: %d %s %v, want %d %s %v", c.file, v, q, f.Errno(), c.v, c.q, c.errno)
					}
				}
			})
			f.Close()
		}
	}
	if root.Kept() != 0 {
		t.Errorf("%d descriptors left", root.Kept())
	}
}

func TestFIFODoesNotBlock(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, "-- temp fifo --\n-- type --\ncv0-thermal\n")
	within(t, "a read once", func() {
		if b, err := root.ReadOnce("temp", 64); err == nil {
			t.Errorf("read %q of a zone that is off", b)
		}
	})
	within(t, "a listing", func() {
		if ns, err := root.List("temp"); err == nil {
			t.Errorf("listed %q in a FIFO", ns)
		}
	})
	within(t, "the boot id", func() {
		devicetest.Remove(t, root, "type")
		if _, err := device.BootID(root); err == nil {
			t.Error("boot id of nothing")
		}
	})
}

func TestNodeVanishesAndComesBack(t *testing.T) {
	t.Parallel()
	root := devicetest.Tree(t, "-- rail --\n100\n")
	f := root.Attr("rail")
	want := func(v int64, q schema.Quality) {
		t.Helper()
		if gv, gq := f.Int(); gv != v || gq != q {
			t.Errorf("%d %s, want %d %s", gv, gq, v, q)
		}
	}
	want(100, schema.QualityGood)
	devicetest.Write(t, root, "rail", "101\n")
	want(101, schema.QualityGood) // through the kept descriptor
	if root.Kept() != 1 {
		t.Errorf("%d descriptors kept, want 1", root.Kept())
	}
	f.Close()
	devicetest.Remove(t, root, "rail")
	want(0, schema.QualityOffline)
	devicetest.Write(t, root, "rail", "102\n")
	want(102, schema.QualityGood)
}

// TestDeadDescriptor reads a file of /proc whose process has ended: the kept
// descriptor answers ESRCH, as one of sysfs answers ENODEV, and the file is opened
// anew, which tells that it is no more.
func TestDeadDescriptor(t *testing.T) {
	t.Parallel()
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "60"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	f := device.NewRoot("/").File(fmt.Sprintf("proc/%d/stat", p.Pid))
	if _, q := f.Read(); q != schema.QualityGood {
		t.Fatalf("stat of a process that lives is %s", q)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if b, q := f.Read(); q != schema.QualityOffline || f.Errno() != unix.ENOENT {
			t.Errorf("stat of a process that is gone is %q, %s, %v", b, q, f.Errno())
		}
	}
}

func TestLargeFiles(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("cpu 1 2 3\n", 20000) // 200,000 bytes
	root := devicetest.Tree(t, "-- big --\n"+big+"-- odd --\n"+big[:127]+"\n-- page --\n"+big[:4096]+"\n")
	for name, want := range map[string]int{"big": device.MaxFile, "odd": 128, "page": 4097} {
		b, q := root.File(name).Read()
		if q != schema.QualityGood || len(b) != want || string(b[:99]) != big[:99] {
			t.Errorf("%s: %d bytes %s, want %d", name, len(b), q, want)
		}
	}
}

func TestKeptDescriptorsAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := device.NewRoot(dir)
	files := make([]*device.File, device.MaxKept+20)
	for i := range files {
		name := fmt.Sprintf("a%d", i)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(fmt.Sprintln(i)), 0o644); err != nil {
			t.Fatal(err)
		}
		files[i] = root.Attr(name)
	}
	for range 2 {
		for i, f := range files {
			if v, q := f.Int(); v != int64(i) || q != schema.QualityGood {
				t.Fatalf("file %d: %d %s", i, v, q)
			}
		}
		if root.Kept() != device.MaxKept {
			t.Errorf("%d descriptors kept, want %d", root.Kept(), device.MaxKept)
		}
	}
	for _, f := range files {
		f.Close()
		f.Close()
	}
	if root.Kept() != 0 {
		t.Errorf("%d descriptors kept after Close", root.Kept())
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	root := devicetest.Tree(t, oddTree)
	for _, f := range []*device.File{root.Attr("good"), root.File("good"), root.Attr("words"), device.NewRoot("/").File("proc/stat")} {
		f.Read()
		if n := testing.AllocsPerRun(100, func() { f.Int() }); n != 0 {
			t.Errorf("%s: %v allocations a read", f.Path(), n)
		}
		f.Close()
	}
}

// BenchmarkRead compares, in one run, what a read of a small attribute costs.
func BenchmarkRead(b *testing.B) {
	root := devicetest.Tree(b, oddTree)
	dirs := map[string]string{"tmp": root.Path("good"), "proc": "/proc/sys/kernel/pid_max"}
	for name, path := range dirs {
		b.Run(name+"/kept", func(b *testing.B) {
			f := device.NewRoot("/").Attr(path)
			defer f.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, q := f.Int(); q != schema.QualityGood {
					b.Fatal(q)
				}
			}
		})
		b.Run(name+"/open_read_close", func(b *testing.B) {
			f := device.NewRoot("/").Attr(path)
			b.ReportAllocs()
			for b.Loop() {
				f.Close()
				if _, q := f.Int(); q != schema.QualityGood {
					b.Fatal(q)
				}
			}
		})
		b.Run(name+"/os.ReadFile", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := os.ReadFile(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
