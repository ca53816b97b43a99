// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writerEnv makes the test binary a process that puts engines into a cache until it
// is killed.
const writerEnv = "FULMAR_CACHE_TEST_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(writerEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	c, err := Open(dir, 0, slog.New(slog.DiscardHandler))
	for n := 0; err == nil; n++ {
		k := key(n % 3)
		id := k.ID()
		err = errors.Join(c.Put(Meta{Key: k}, plan(n%3)), c.Begin(id), c.PutTiming(&k, plan(n%3)))
		if n == 0 {
			fmt.Println("begun")
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

func key(n int) Key {
	return NewKey(strings.Repeat(fmt.Sprint(n), 64), "int8", &Device{Flavour: "TensorRT", Version: "10.3.0", ComputeCapability: "8.7", SMs: 16, Memory: 8 << 30}, "", Options{MaxBatch: 1, Level: -1, DLACore: -1})
}

// plan is the content of engine n, large enough that its writing takes time.
func plan(n int) []byte { return bytes.Repeat([]byte{byte(n + 1)}, 3<<20+n) }

func open(t *testing.T, dir string, quota int64) *Cache {
	t.Helper()
	c, err := Open(dir, quota, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(t *testing.T, c *Cache, n int) string {
	t.Helper()
	k := key(n)
	if err := c.Put(Meta{Key: k, Model: "m@1"}, plan(n)); err != nil {
		t.Fatal(err)
	}
	return k.ID()
}

// names lists a folder without its locks.
func names(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, n := range all {
		if n.Name() != lockName && n.Name() != buildName {
			out = append(out, n.Name())
		}
	}
	return out
}

// Each part of the key makes another engine.
func TestKeyHoldsAllParts(t *testing.T) {
	t.Parallel()
	base := key(1)
	seen := map[string]string{base.ID(): "nothing"}
	v := reflect.ValueOf(&base).Elem()
	for i := range v.NumField() {
		k := base
		switch f := reflect.ValueOf(&k).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		default:
			f.SetInt(f.Int() + 1)
		}
		name := v.Type().Field(i).Name
		if old, there := seen[k.ID()]; there {
			t.Errorf("another %s is the same engine as another %s", name, old)
		}
		seen[k.ID()] = name
	}
	if !isID(base.ID()) {
		t.Errorf("%q is no name", base.ID())
	}
	for memory, want := range map[int64]int64{0: 128 << 20, 4 << 30: 512 << 20, 4<<30 - 1: 256 << 20, 7600 << 20: 512 << 20, 8 << 30: 1 << 30, 64 << 30: 1 << 30} {
		if got := workspace(memory); got != want {
			t.Errorf("workspace of %d is %d, wants %d", memory, got, want)
		}
	}
}

func TestL4T(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if s, err := L4T(root); s != "" || err != nil {
		t.Errorf("no Jetson: %q, %v", s, err)
	}
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	line := "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n# more\n"
	if err := os.WriteFile(filepath.Join(root, "etc", "nv_tegra_release"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := L4T(root); err != nil || s != "R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64" {
		t.Errorf("%q, %v", s, err)
	}
}

func TestPutTake(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "engines")
	c := open(t, dir, 0)
	if _, err := c.Take(key(1).id()); !errors.Is(err, ErrNone) {
		t.Errorf("an empty cache gives %v", err)
	}
	id := put(t, c, 1)
	e, err := open(t, dir, 0).Take(id)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Release()
	if !bytes.Equal(e.Plan, plan(1)) || e.Meta.Model != "m@1" || e.Meta.Key != key(1) {
		t.Errorf("another engine came back: %d bytes, %+v", len(e.Plan), e.Meta)
	}
	for path, want := range map[string]os.FileMode{"": 0o700, id: 0o700, id + "/plan": 0o600, id + "/meta.json": 0o600, "lock": 0o600} {
		if st, err := os.Stat(filepath.Join(dir, path)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%q: %v, %v", path, st.Mode(), err)
		}
	}
	k := key(1)
	if err := c.PutTiming(&k, []byte("timing")); err != nil || string(c.Timing(&k)) != "timing" {
		t.Error(err)
	}
	k.Version = "10.4.0"
	if b := c.Timing(&k); b != nil {
		t.Errorf("another version got the timing cache %q", b)
	}
}

func (k Key) id() string { return k.ID() }

// Nothing that was damaged is ever given out; it is gone and said instead.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(entry string) error{
		"truncated plan": func(p string) error { return os.Truncate(filepath.Join(p, planName), 1000) },
		"longer plan":    func(p string) error { return os.Truncate(filepath.Join(p, planName), 4<<20) },
		"no plan":        func(p string) error { return os.Remove(filepath.Join(p, planName)) },
		"no meta":        func(p string) error { return os.Remove(filepath.Join(p, metaName)) },
		"flipped bit": func(p string) error {
			return edit(filepath.Join(p, planName), func(b []byte) []byte { b[len(b)/2] ^= 4; return b })
		},
		"no JSON":       func(p string) error { return os.WriteFile(filepath.Join(p, metaName), []byte("{"), 0o600) },
		"huge meta":     func(p string) error { return os.Truncate(filepath.Join(p, metaName), maxMeta+1) },
		"of other GPU":  func(p string) error { return metaWith(p, func(m *Meta) { m.Key.SMs = 8 }) },
		"negative size": func(p string) error { return metaWith(p, func(m *Meta) { m.Bytes = -1 }) },
		"huge size":     func(p string) error { return metaWith(p, func(m *Meta) { m.Bytes = 1 << 50 }) },
	} {
		c := open(t, t.TempDir(), 0)
		id := put(t, c, 1)
		if err := damage(filepath.Join(c.Dir(), id)); err != nil {
			t.Fatal(err)
		}
		if e, err := c.Take(id); !errors.Is(err, ErrDamaged) || e != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left := names(t, c.Dir()); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
		if _, err := c.Take(id); !errors.Is(err, ErrNone) {
			t.Errorf("%s: then %v", name, err)
		}
	}
}

func edit(path string, fn func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fn(b), 0o600)
}

func metaWith(entry string, fn func(*Meta)) error {
	return edit(filepath.Join(entry, metaName), func(b []byte) []byte {
		var m Meta
		if json.Unmarshal(b, &m) != nil {
			return nil
		}
		fn(&m)
		b, _ = json.Marshal(m)
		return b
	})
}

// The least recently used go first; what is in use and what was just put stay.
func TestBounds(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir(), 10<<20) // three plans
	a, b, d := put(t, c, 1), put(t, c, 2), put(t, c, 3)
	hour := time.Now().Add(-time.Hour)
	for i, id := range []string{a, b, d} {
		at := hour.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(filepath.Join(c.Dir(), id, metaName), at, at); err != nil {
			t.Fatal(err)
		}
	}
	used, err := c.Take(a)
	if err != nil {
		t.Fatal(err)
	}
	at := hour.Add(-time.Hour) // the oldest of all, but in use
	if err := os.Chtimes(filepath.Join(c.Dir(), a, metaName), at, at); err != nil {
		t.Fatal(err)
	}
	put(t, c, 4)
	if !c.Has(a) || c.Has(b) || !c.Has(d) || !c.Has(key(4).id()) {
		t.Errorf("wants engines 1, 3 and 4; there are %v", names(t, c.Dir()))
	}
	used.Release()
	put(t, c, 5)
	if c.Has(a) {
		t.Error("the oldest stayed though nobody uses it any more")
	}
	if n := c.Bytes(); n > 10<<20 {
		t.Errorf("%d bytes", n)
	}
	small := open(t, t.TempDir(), 1<<20)
	if err := small.Put(Meta{Key: key(1)}, plan(1)); !errors.Is(err, ErrQuota) || len(names(t, small.Dir())) > 0 {
		t.Errorf("an engine over the quota: %v, %v", err, names(t, small.Dir()))
	}
	many := open(t, t.TempDir(), 0)
	for n := range MaxEntries + 3 {
		if err := many.Put(Meta{Key: key(n)}, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(many.List()); n != MaxEntries {
		t.Errorf("%d engines, at most %d", n, MaxEntries)
	}
}

// A full disk: nothing half stays, and the error says what it is.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir(), 0)
	c.write = func(f *os.File, b []byte) (int, error) {
		n, err := f.Write(b[:len(b)/2])
		if err == nil {
			err = &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
		}
		return n, err
	}
	if err := c.Put(Meta{Key: key(1)}, plan(1)); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("a full disk: %v", err)
	}
	c.write = func(f *os.File, b []byte) (int, error) { return f.Write(b[:len(b)/2]) }
	if err := c.Put(Meta{Key: key(1)}, plan(1)); err == nil {
		t.Error("a short write went unseen")
	}
	if left := names(t, c.Dir()); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if c.Free() <= 0 {
		t.Errorf("free room %d", c.Free())
	}
}

// On a real file system that is full.
func TestFullFileSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount: %v", err)
		}
		t.Skipf("mount: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	c := open(t, filepath.Join(dir, "engines"), 0)
	id := put(t, c, 1)
	if err := c.Put(Meta{Key: key(2)}, plan(2)); !errors.Is(err, ErrFull) {
		t.Errorf("a full file system: %v", err)
	}
	e, err := c.Take(id)
	if err != nil || len(names(t, c.Dir())) != 1 {
		t.Fatalf("the engine before: %v, %v", err, names(t, c.Dir()))
	}
	e.Release()
}

// A writer that is killed at any moment leaves whole engines or none, and what it left
// half is gone with the next start.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const kills = 12
	halves, entries := 0, 0
	for range kills {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), writerEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if half, _ := filepath.Glob(filepath.Join(dir, ".*")); len(half) > 0 {
			halves++
		}
		c := open(t, dir, 0)
		if half, _ := filepath.Glob(filepath.Join(dir, ".*")); len(half) > 0 {
			t.Fatalf("half things stay: %v", half)
		}
		for n := range 3 {
			id := key(n).id()
			switch e, err := c.Take(id); {
			case err == nil:
				entries++
				if !bytes.Equal(e.Plan, plan(n)) {
					t.Error("half an engine was given out")
				}
				e.Release()
			case !errors.Is(err, ErrNone): // a rename over the old one may be cut between the two
				t.Error(err)
			}
		}
		k := key(0) // the timing cache is that of all
		if b := c.Timing(&k); b != nil && (len(b) < 3<<20 || !bytes.Equal(b, plan(len(b)-3<<20))) {
			t.Error("half a timing cache was given out")
		}
	}
	if halves == 0 || entries == 0 {
		t.Errorf("%d of %d kills hit a write, %d engines were there: the test tests nothing", halves, kills, entries)
	}
	t.Logf("%d of %d kills hit a write; %d whole engines", halves, kills, entries)
}

// Another process that writes now is left alone by the clean-up of one that starts.
func TestCleanSparesTheLiving(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir(), 0)
	id := key(1).id()
	c.write = func(f *os.File, b []byte) (int, error) {
		open(t, c.Dir(), 0) // somebody starts in the middle
		return f.Write(b)
	}
	if err := c.Put(Meta{Key: key(1)}, plan(1)); err != nil || !c.Has(id) {
		t.Errorf("%v", err)
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir(), 0)
	id := put(t, c, 1)
	for n := range MaxTries {
		r := c.Record(id)
		if why := r.Barred(); why != "" {
			t.Fatalf("barred after %d tries: %s", n, why)
		}
		if err := c.Begin(id); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, c.Dir(), 0).Record(id)
	if why := r.Barred(); !strings.Contains(why, "quarantine") || !strings.Contains(why, "3 times") {
		t.Errorf("after %d tries: %q", MaxTries, why)
	}
	other := c.Record(key(2).id())
	if other.Barred() != "" {
		t.Error("another engine is barred too")
	}
	if err := c.Good(id); err != nil || c.Record(id) != (Record{}) || len(c.Records()) != 0 {
		t.Errorf("forgiven: %+v, %v", c.Record(id), err)
	}
	if err := c.Refuse(id, "p1", "two\nlines "+strings.Repeat("long ", 200)+"\xff"); err != nil {
		t.Fatal(err)
	}
	r = c.Record(id)
	if why := r.Barred(); !strings.HasPrefix(why, "two lines") || len(why) > maxWhy || strings.Contains(why, "\n") {
		t.Errorf("refused: %q", why)
	}
	if r.BarredFor("p1") == "" || r.BarredFor("p2") != "" {
		t.Error("a refusal by one model.yaml holds for that one")
	}
	if got := c.Records(); len(got) != 1 || got[id] != r {
		t.Errorf("records %+v", got)
	}
	// A record that cannot be read is a memory lost, no more.
	if err := os.WriteFile(filepath.Join(c.Dir(), id+recordTail), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r = c.Record(id); r.Barred() != "" {
		t.Errorf("a broken record bars: %+v", r)
	}
	if err := c.Begin(id); err != nil || c.Record(id).Tries != 1 {
		t.Errorf("after it: %+v, %v", c.Record(id), err)
	}
	for n := range maxRecords + 5 {
		if err := c.Refuse(key(100+n).id(), "", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.Records()); n > maxRecords {
		t.Errorf("%d records, at most %d", n, maxRecords)
	}
}

// One build at a time on a board; a waiting one can be told to end.
func TestBuildLock(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir(), 0)
	unlock, err := c.LockBuild(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := open(t, c.Dir(), 0).LockBuild(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("the second one: %v", err)
	}
	unlock()
	again, err := c.LockBuild(t.Context(), func() { t.Error("it had to wait") })
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// A folder of somebody else is not used: an engine is code.
func TestForeignFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, -1); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if _, err := Open(dir, 0, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("a foreign folder: %v", err)
	}
}

func TestExpect(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir(), 0)
	k := key(1)
	if err := c.Put(Meta{Key: k, Took: 90, Built: time.Now()}, []byte{1}); err != nil {
		t.Fatal(err)
	}
	if got := c.Expect(k.Network); got != 90*time.Second {
		t.Errorf("expects %v", got)
	}
	if got := c.Expect("other"); got != 0 {
		t.Errorf("expects %v of another network", got)
	}
}
