// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fulmar/inference/worker"
	"fulmar/models/parcels"
	"fulmar/schema"
)

// roleEnv makes the test binary the real program, so that tests start, kill and
// restart what is shipped.
const roleEnv = "FULMAR_INFER_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "infer" {
		main()
	}
	os.Exit(m.Run())
}

// library gives the path of ONNX Runtime that cross/ort/fetch put into the cache.
func library(t *testing.T) string {
	t.Helper()
	path := os.Getenv("FULMAR_ORT")
	if path == "" {
		arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
		path = filepath.Join("..", "..", ".cache", "onnxruntime", "1.30.0", "linux-"+arch, libraryName)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no ONNX Runtime at %s: run cross/ort/fetch", path)
		}
		t.Skipf("no ONNX Runtime at %s: run cross/ort/fetch", path)
	}
	return path
}

// desk plays fulmard.
type desk struct {
	child   *worker.Child
	client  *worker.Client
	dir     string
	results chan worker.Result
	// patience is how long a test waits for what has to come, listen how long the
	// child may take to end.
	patience, listen time.Duration

	mu     sync.Mutex
	status worker.Status
}

func (d *desk) Result(_ context.Context, r *worker.Result) {
	select {
	case d.results <- *r:
	default: // the test does not look at all of them
	}
}

func (d *desk) Status(_ context.Context, s *worker.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status = *s
}

func (d *desk) now() worker.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

// newDesk runs the real program as a child until the test ends.
func newDesk(t *testing.T, args ...string) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "fi") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	socket := filepath.Join(dir, "w.sock")
	d := &desk{dir: dir, results: make(chan worker.Result, 64), patience: 20 * time.Second, listen: 2 * time.Second}
	d.child = &worker.Child{
		Path: self, Args: append([]string{"--child", "--socket", socket}, args...),
		Env: append(doubleEnv(), roleEnv+"=infer"), Socket: socket, Log: log,
	}
	d.client = worker.NewClient(release, d.child.Dial, d, log)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, part := range []func(context.Context) error{d.child.Run, d.client.Run} {
		wg.Go(func() { _ = part(ctx) })
	}
	t.Cleanup(func() {
		start := time.Now()
		cancel()
		wg.Wait()
		// The child is asked before it is killed, after 3 s: it shall listen.
		if took := time.Since(start); took > d.listen {
			t.Errorf("the stop took %v", took)
		}
	})
	return d
}

// doubleEnv is what steers the double of TensorRT.
func doubleEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return !strings.HasPrefix(e, "FULMAR_DOUBLE_") })
}

func itoa(n int) string { return strconv.Itoa(n) }

func (d *desk) result(t *testing.T) worker.Result {
	t.Helper()
	select {
	case r := <-d.results:
		return r
	case <-time.After(d.patience):
		t.Fatalf("no result came; status %+v, last exit %q", d.now(), d.child.LastExit())
		return worker.Result{}
	}
}

func (d *desk) until(t *testing.T, what string, ok func(worker.Status) bool) worker.Status {
	t.Helper()
	for end := time.Now().Add(d.patience); ; time.Sleep(10 * time.Millisecond) {
		if s := d.now(); ok(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("waited for %s; status %+v, last exit %q", what, d.now(), d.child.LastExit())
		}
	}
}

func sceneSetup(dir string) worker.Setup {
	return worker.Setup{
		Models: []worker.Model{{Name: "parcels", Path: "builtin:parcels"}},
		Cameras: []worker.Camera{{
			Name: "cam0", Kind: "scene", FPS: 10, Model: "parcels",
			EventEvery: 100 * time.Millisecond, SnapshotEvery: time.Second,
		}},
		BlobDir: filepath.Join(dir, "blobs"), BlobQuota: 16 << 20, Threads: 1,
	}
}

// The main job of the worker with all parts real: the drawn scene, the model inside
// the program, ONNX Runtime, pictures on disk, the border, and a worker that is
// killed again and again.
func TestWorkerSeesAndComesBack(t *testing.T) {
	began := time.Now()
	d := newDesk(t, "--ort", library(t))
	if err := d.client.Update(sceneSetup(d.dir)); err != nil {
		t.Fatal(err)
	}
	kept, first := 0, time.Duration(0)
	var boot uint64
	for range 25 {
		r := d.result(t)
		if first == 0 {
			first = time.Since(began)
		}
		rec := schema.Record{Kind: schema.KindEvent, Time: r.Time, Event: &r.Event}
		if _, err := schema.EncodeRecord(&rec); err != nil {
			t.Fatal(err)
		}
		if r.Event.Engine != "onnxruntime-cpu/int8" || r.Event.LatencyUs == 0 || len(r.Event.Labels) == 0 || r.Time.Boot == 0 {
			t.Fatalf("event %+v", r.Event)
		}
		boot = r.Time.Boot
		if r.Snapshot == nil {
			continue
		}
		kept++
		b, err := os.ReadFile(filepath.Join(d.dir, "blobs", r.Snapshot.Name))
		if err != nil || sha256.Sum256(b) != r.Snapshot.SHA256 {
			t.Errorf("picture %s: %d bytes, %v", r.Snapshot.Name, len(b), err)
		}
	}
	if kept < 2 {
		t.Errorf("%d pictures in 25 events at 10 a second", kept)
	}
	s := d.until(t, "counts", func(s worker.Status) bool { return len(s.Cameras) == 1 && s.Cameras[0].True > 50 })
	c := s.Cameras[0]
	// The card's promise is judged elsewhere; here a wiring fault would show.
	if c.True < 2*c.False || c.True < 2*c.Missed {
		t.Errorf("%d right, %d false, %d missed: the model does not see the scene", c.True, c.False, c.Missed)
	}
	t.Logf("%d right, %d false, %d missed; %.1f frames a second, p50 %d us, p99 %d us", c.True, c.False, c.Missed, c.FPS, c.P50Us, c.P99Us)

	var back []time.Duration
	for range 5 { // each death doubles the wait: the fifth is 400 ms
		for len(d.results) > 0 {
			<-d.results
		}
		start := time.Now()
		if err := syscall.Kill(d.child.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for {
			// Results of the killed one may still come; those of the new one begin anew.
			if r := d.result(t); r.Event.Frame < 3 {
				if r.Time.Boot != boot {
					t.Error("another boot")
				}
				break
			}
		}
		back = append(back, time.Since(start))
		d.result(t)
		d.result(t)
		d.result(t)
	}
	t.Logf("first start to the first result: %v; from SIGKILL to the first result: %v", first, back)
	// Two seconds is what is promised; a machine so busy that even the first start
	// took longer is measured by that.
	if best, limit := slices.Min(back), max(2*time.Second, 2*first); best > limit {
		t.Errorf("back after %v, at most %v", best, limit)
	}
	if n := d.child.Restarts(); n != 5 {
		t.Errorf("%d restarts", n)
	}
}

// A broken package and a missing one are refused with a sentence; the good one runs.
func TestRefusedModelsSayWhy(t *testing.T) {
	d := newDesk(t, "--ort", library(t))
	broken := filepath.Join(d.dir, "broken")
	if err := os.CopyFS(broken, parcels.Files()); err != nil {
		t.Fatal(err)
	}
	onnx, err := fs.Glob(os.DirFS(broken), "*int8*.onnx")
	if err != nil || len(onnx) != 1 {
		t.Fatalf("networks %v, %v", onnx, err)
	}
	b, err := os.ReadFile(filepath.Join(broken, onnx[0]))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(filepath.Join(broken, onnx[0]), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s := sceneSetup(d.dir)
	s.Models = append(s.Models,
		worker.Model{Name: "broken", Path: broken}, worker.Model{Name: "missing", Path: filepath.Join(d.dir, "none")},
		worker.Model{Name: "variant", Path: "builtin:parcels", Variant: "int3"}, worker.Model{Name: "other", Path: "builtin:unicorns"})
	if err := d.client.Update(s); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"broken": "SHA-256", "missing": "no such file", "variant": "int3", "other": "builtin:parcels"}
	st := d.until(t, "all models to be settled", func(s worker.Status) bool {
		n := 0
		for _, m := range s.Models {
			if m.State != "loading" {
				n++
			}
		}
		return n == 5
	})
	for _, m := range st.Models {
		if why, bad := want[m.Name]; bad && (m.State != "refused" || !strings.Contains(m.Error, why)) || !bad && (m.State != "ready" || len(m.SHA256) != 64) {
			t.Errorf("model %+v", m)
		}
	}
	d.result(t)
}

// Without ONNX Runtime the worker runs and says what is missing.
func TestMissingLibraryIsSaid(t *testing.T) {
	d := newDesk(t, "--ort", "/nowhere/libonnxruntime.so.1")
	if err := d.client.Update(sceneSetup(d.dir)); err != nil {
		t.Fatal(err)
	}
	s := d.until(t, "a refusal", func(s worker.Status) bool { return len(s.Models) == 1 && s.Models[0].State == "refused" })
	if !strings.Contains(s.Models[0].Error, "/nowhere/libonnxruntime.so.1") {
		t.Errorf("model %+v", s.Models[0])
	}
	if d.child.Restarts() != 0 {
		t.Errorf("the worker died: %s", d.child.LastExit())
	}
}

func TestModelCheck(t *testing.T) {
	lib := library(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "p"), parcels.Files()); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{"builtin:parcels", filepath.Join(dir, "p")} {
		out, err := checkModel(self, lib, where)
		if err != nil || !strings.Contains(out, "parcels@1") || !strings.Contains(out, "pictures give what they should") {
			t.Errorf("%s: %v\n%s", where, err, out)
		}
	}
	if out, err := checkModel(self, lib, dir); err == nil || !strings.Contains(out, "model.yaml") {
		t.Errorf("a folder without a model: %v\n%s", err, out)
	}
}

func checkModel(self, lib, path string) (string, error) {
	cmd := exec.Command(self, "--ort", lib, "model", "check", path)
	cmd.Env = []string{roleEnv + "=infer"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"bogus"},
		{"--what"},
		{"model"},
		{"model", "check"},
		{"--log", "loud"},
		{"model", "build"},
		{"model", "build", "a", "b", "c"},
		{"model", "build", "--progress", "loud", "a"},
		{"model", "build", "--batch", "x", "a"},
		{"doctor", "now"},
		{"doctor", "--what"},
	} {
		var out, errs bytes.Buffer
		if code := infer(t.Context(), args, nil, &out, &errs); code != 2 || !strings.Contains(errs.String(), "usage") {
			t.Errorf("%v: exit code %d, %q", args, code, errs.String())
		}
	}
	var out, errs bytes.Buffer
	if code := infer(t.Context(), []string{"version"}, nil, &out, &errs); code != 0 || !strings.Contains(out.String(), release) {
		t.Errorf("version: exit code %d, %q", code, out.String())
	}
	if code := infer(t.Context(), nil, nil, &out, &errs); code != 1 || !strings.Contains(errs.String(), "socket path") {
		t.Errorf("no socket: exit code %d, %q", code, errs.String())
	}
}

// A worker whose fulmard is gone ends by itself: its standard input ended.
func TestChildEndsWithItsInput(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "fi")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var out, errs bytes.Buffer
	code := infer(t.Context(), []string{"--child", "--socket", filepath.Join(dir, "s")}, strings.NewReader(""), &out, &errs)
	if code != 0 {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}
