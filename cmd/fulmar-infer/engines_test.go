// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/inference/engines/build"
	"fulmar/inference/engines/cache"
	"fulmar/inference/trt/trttest"
	"fulmar/inference/worker"
	"fulmar/models/parcels"
)

// gpuDesk runs the real worker with the double of TensorRT in dir. env steers it.
func gpuDesk(t *testing.T, dir string, env ...string) *desk {
	t.Helper()
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value) // taken over by newDesk
	}
	d := newDesk(t, "--ort", library(t), "--trt", dir)
	// The double computes on the CPU, a hundred times slower than what it stands for.
	d.patience, d.listen = 90*time.Second, 10*time.Second
	return d
}

// gpuSetup looks with one camera, slowly: the double computes on the CPU.
func gpuSetup(d *desk, cacheDir string) worker.Setup {
	s := sceneSetup(d.dir)
	s.Cameras[0].FPS = 5
	s.Engines = worker.Engines{Cache: cacheDir, Quota: 1 << 30, MaxBatch: 1}
	return s
}

// rss is the memory of a process, in words.
func rss(pid int) string {
	b, _ := os.ReadFile(filepath.Join("/proc", itoa(pid), "status")) // for the log only
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "VmRSS:") {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return "memory not known"
}

func (d *desk) model(t *testing.T, what string, ok func(m worker.ModelStatus) bool) worker.ModelStatus {
	t.Helper()
	s := d.until(t, what, func(s worker.Status) bool { return len(s.Models) == 1 && ok(s.Models[0]) })
	return s.Models[0]
}

// The main job of an engine's life, all real but the library: ONNX Runtime sees at
// once, the engine is built meanwhile and takes over without a frame lost; the next
// worker starts with it.
func TestEngineIsBuiltTakesOverAndIsKept(t *testing.T) {
	double, kept := trttest.Double(t, 10), filepath.Join(t.TempDir(), "engines")
	d := gpuDesk(t, double, "FULMAR_DOUBLE_BUILDMS=2500")
	s := gpuSetup(d, kept)
	s.Engines.MaxBatch = 2
	if err := d.client.Update(s); err != nil {
		t.Fatal(err)
	}
	if r := d.result(t); r.Event.Engine != "onnxruntime-cpu/int8" {
		t.Errorf("the first event is of %s", r.Event.Engine)
	}
	m := d.model(t, "the build to be on its way", func(m worker.ModelStatus) bool { return strings.Contains(m.Build, "building, ") })
	if m.State != "ready" || m.Engine != "onnxruntime-cpu/int8" || m.Fallback == "" || m.EngineVersion != "ONNX Runtime 1.30.0" {
		t.Errorf("during the build: %+v", m)
	}
	m = d.model(t, "the engine to take over", func(m worker.ModelStatus) bool { return m.Engine == "tensorrt/int8" })
	if m.State != "ready" || m.Build != "" || m.Fallback != "" || m.EngineVersion != "TensorRT 10.3.0 on Double GPU" {
		t.Errorf("after the build: %+v", m)
	}
	for d.result(t).Event.Engine != "tensorrt/int8" {
	}
	if c := d.now().Cameras[0]; c.Bad > 0 || c.True < 2*c.False {
		t.Errorf("camera %+v", c)
	}
	// The engine is in use: not even a bound of nothing takes it.
	c, err := cache.Open(kept, 1, d.child.Log)
	if err != nil {
		t.Fatal(err)
	}
	if l := c.List(); len(l) != 1 || !l[0].InUse || l[0].Meta == nil || l[0].Meta.Golden == 0 {
		t.Fatalf("cache %+v", l)
	}
	if err := syscall.Kill(d.child.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.until(t, "the restart", func(worker.Status) bool { return d.child.Restarts() == 1 })
	for len(d.results) > 0 {
		<-d.results
	}
	restarted := time.Now()
	for n := 0; n < 3; {
		r := d.result(t)
		if n == 0 {
			t.Logf("from the restart to the first result on the kept engine: %v, %s", time.Since(restarted), rss(d.child.PID()))
		}
		if r.Event.Frame < 20 && r.Event.Engine != "tensorrt/int8" {
			t.Fatalf("after the restart frame %d was seen by %s", r.Event.Frame, r.Event.Engine)
		}
		n++
	}
	if m := d.model(t, "the engine", func(m worker.ModelStatus) bool { return m.Engine == "tensorrt/int8" }); m.Build != "" {
		t.Errorf("after the restart: %+v", m)
	}
	if r := c.Record(c.List()[0].ID); r.Tries != 2 {
		t.Errorf("the record after one death and a start: %+v", r)
	}
}

// A lost GPU ends the worker with its own code after it said so; the next one works.
// An engine with which the worker dies again and again is left alone.
func TestLostGPUAndQuarantine(t *testing.T) {
	double, kept := trttest.Double(t, 10), filepath.Join(t.TempDir(), "engines")
	buildNow(t, double, kept)
	// The golden pictures take the first runs; a few frames later the device is lost.
	d := gpuDesk(t, double, "FULMAR_DOUBLE_STICKY=16")
	if err := d.client.Update(gpuSetup(d, kept)); err != nil {
		t.Fatal(err)
	}
	if r := d.result(t); r.Event.Engine != "tensorrt/int8" {
		t.Errorf("the first event is of %s", r.Event.Engine)
	}
	m := d.model(t, "the loss to be said", func(m worker.ModelStatus) bool { return m.State == "refused" })
	if !strings.Contains(m.Error, "GPU was lost") {
		t.Errorf("status %+v", m)
	}
	m = d.model(t, "the fallback", func(m worker.ModelStatus) bool { return m.Engine == "onnxruntime-cpu/int8" })
	if !strings.Contains(m.Fallback, "quarantine") || !strings.Contains(m.Fallback, "3 times") || m.Build != "" {
		t.Errorf("after three losses: %+v", m)
	}
	if ends := d.child.Ends(); ends[worker.EndDeviceLost] != 3 || len(ends) != 1 || d.child.LastEnd() != worker.EndDeviceLost {
		t.Errorf("ends %v", ends)
	}
	for d.result(t).Event.Engine != "onnxruntime-cpu/int8" {
	}
	c, err := cache.View(kept, d.child.Log)
	if err != nil || len(c.List()) != 1 {
		t.Fatalf("the engine is not kept: %v", err)
	}
	out, _ := program(t, double, "doctor", "--cache", kept)
	if !strings.Contains(out, "quarantine") || !strings.Contains(out, "--anew") {
		t.Errorf("doctor does not tell:\n%s", out)
	}
	// A person may give it a new chance.
	if out, code := program(t, double, "model", "build", "--cache", kept, "--batch", "1", "builtin:parcels"); code != build.ExitRefused || !strings.Contains(out, "--anew") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if out, code := program(t, double, "model", "build", "--anew", "--cache", kept, "--batch", "1", "builtin:parcels"); code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if r := c.Record(c.List()[0].ID); r.Barred() != "" {
		t.Errorf("record %+v", r)
	}
}

// Each thing that can be missing or wrong leaves ONNX Runtime at work, and says why.
func TestFallbacksSayWhy(t *testing.T) {
	t.Setenv("FULMAR_DOUBLE_NODRIVER", "")
	damaged := filepath.Join(t.TempDir(), "engines")
	whole := trttest.Double(t, 10)
	buildNow(t, whole, damaged)
	l, err := filepath.Glob(filepath.Join(damaged, "*", "plan"))
	if err != nil || len(l) != 1 {
		t.Fatal(l, err)
	}
	b, err := os.ReadFile(l[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(l[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dir, cache, engine string
		env                      []string
		state, why               string
	}{
		{name: "no library", dir: t.TempDir(), state: "ready", why: "no libnvinfer"},
		{name: "no driver", dir: trttest.Double(t, 10, trttest.WithoutDriver()), state: "ready", why: "no CUDA driver"},
		{name: "no parser", dir: trttest.Double(t, 10, trttest.WithoutParser()), state: "ready", why: "parser"},
		{name: "unknown major", dir: trttest.Double(t, 10, trttest.UnknownMajor(12)), state: "ready", why: "12"},
		{name: "no GPU", dir: whole, env: []string{"FULMAR_DOUBLE_NODRIVER=1"}, state: "ready", why: "GPU"},
		{name: "no folder", dir: whole, cache: "none", state: "ready", why: "infer.engine_cache"},
		{name: "network refused", dir: whole, env: []string{"FULMAR_DOUBLE_FAILBUILD=1"}, state: "ready", why: "build of its TensorRT engine failed"},
		{name: "asked for", dir: whole, engine: worker.EngineONNX, state: "ready"},
		{name: "TensorRT or nothing", dir: t.TempDir(), engine: worker.EngineTensorRT, state: "refused", why: "engine: tensorrt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := gpuDesk(t, c.dir, c.env...)
			s := gpuSetup(d, filepath.Join(t.TempDir(), "engines"))
			if c.cache == "none" {
				s.Engines.Cache = ""
			}
			s.Models[0].Engine = c.engine
			if err := d.client.Update(s); err != nil {
				t.Fatal(err)
			}
			m := d.model(t, "the reason", func(m worker.ModelStatus) bool {
				return m.State == c.state && m.Build == "" && strings.Contains(m.Fallback+m.Error, c.why)
			})
			if c.state == "ready" && (m.Engine != "onnxruntime-cpu/int8" || (c.why == "") != (m.Fallback == "")) || strings.Contains(m.Fallback, "\n") {
				t.Errorf("status %+v", m)
			}
			t.Logf("%s%s", m.Fallback, m.Error)
		})
	}
	t.Run("damaged", func(t *testing.T) {
		d := gpuDesk(t, whole, "FULMAR_DOUBLE_BUILDMS=300")
		if err := d.client.Update(gpuSetup(d, damaged)); err != nil {
			t.Fatal(err)
		}
		// Built anew, with ONNX Runtime before.
		if r := d.result(t); r.Event.Engine != "onnxruntime-cpu/int8" {
			t.Errorf("a damaged engine ran: %s", r.Event.Engine)
		}
		d.model(t, "a new engine", func(m worker.ModelStatus) bool { return m.Engine == "tensorrt/int8" })
	})
	t.Run("TensorRT only, built first", func(t *testing.T) {
		d := gpuDesk(t, whole, "FULMAR_DOUBLE_BUILDMS=1500")
		s := gpuSetup(d, filepath.Join(t.TempDir(), "engines"))
		s.Models[0].Engine = worker.EngineTensorRT
		if err := d.client.Update(s); err != nil {
			t.Fatal(err)
		}
		m := d.model(t, "the build", func(m worker.ModelStatus) bool { return strings.Contains(m.Build, "building, ") })
		if m.State != "loading" {
			t.Errorf("status %+v", m)
		}
		if r := d.result(t); r.Event.Engine != "tensorrt/int8" {
			t.Errorf("the first event is of %s", r.Event.Engine)
		}
	})
}

// Beside the GPU the cores of a DLA are used where they are worth it.
func TestDLAIsUsedBesideTheGPU(t *testing.T) {
	double, kept := trttest.Double(t, 8), filepath.Join(t.TempDir(), "engines")
	buildNow(t, double, kept)
	d := gpuDesk(t, double, "FULMAR_DOUBLE_DLA=2", "FULMAR_DOUBLE_BUILDMS=1500")
	s := gpuSetup(d, kept)
	s.Engines.DLA = true
	if err := d.client.Update(s); err != nil {
		t.Fatal(err)
	}
	m := d.model(t, "the build for the DLA", func(m worker.ModelStatus) bool { return strings.HasPrefix(m.Build, "for the DLA: building, ") })
	if m.Engine != "tensorrt/int8" || m.State != "ready" || m.Fallback != "" {
		t.Errorf("during the build: %+v", m)
	}
	m = d.model(t, "the DLA", func(m worker.ModelStatus) bool { return strings.HasSuffix(m.EngineVersion, " and 2 DLA cores") })
	if m.Engine != "tensorrt/int8" || m.Build != "" {
		t.Errorf("after the build: %+v", m)
	}
	if r := d.result(t); r.Event.Engine != "tensorrt/int8" {
		t.Errorf("event of %s", r.Event.Engine)
	}
	// One that is slow is left alone, and doctor tells why.
	c, err := cache.View(kept, d.child.Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.List() {
		if e.Meta.Key.DLACore < 0 {
			continue
		}
		e.Meta.RunUs = 1 << 40
		b, err := json.Marshal(e.Meta)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(kept, e.ID, "meta.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Threads = 2 // the models are loaded anew
	if err := d.client.Update(s); err != nil {
		t.Fatal(err)
	}
	d.model(t, "the GPU alone", func(m worker.ModelStatus) bool { return m.EngineVersion == "TensorRT 8.6.1 on Double GPU" })
	if out, _ := program(t, double, "doctor", "--cache", kept); !strings.Contains(out, "the DLA is not used") || !strings.Contains(out, "18 of 60 layers") {
		t.Errorf("doctor says\n%s", out)
	}
}

// program runs a command of the real program with the double.
func program(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	cmd := command(t, dir, args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func command(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"--trt", dir}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "FULMAR_DOUBLE_STICKY") })
	cmd.Env = append(cmd.Env, roleEnv+"=infer")
	return cmd
}

// buildNow puts the engine into the cache.
func buildNow(t *testing.T, dir, kept string) {
	t.Helper()
	if out, code := program(t, dir, "model", "build", "--cache", kept, "--batch", "1", "builtin:parcels"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
}

// promising is the parcels package with a card that promises more than it holds.
func promising(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.CopyFS(dir, parcels.Files()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "model.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(b), "int8: 0.9206}", "int8: 0.9999}", 1)
	if changed == string(b) {
		t.Fatal("the card's figure is another: mend this test")
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The command's codes, lines and traces on disk, case by case.
func TestModelBuildCommand(t *testing.T) {
	whole := trttest.Double(t, 10)
	kept := filepath.Join(t.TempDir(), "engines")
	for _, c := range []struct {
		name, dir string
		env       string
		path      string
		code      int
		say       string
	}{
		{"no library", t.TempDir(), "", "builtin:parcels", build.ExitLibrary, "no libnvinfer"},
		{"no parser", trttest.Double(t, 10, trttest.WithoutParser()), "", "builtin:parcels", build.ExitLibrary, "parser"},
		{"no driver", trttest.Double(t, 10, trttest.WithoutDriver()), "", "builtin:parcels", build.ExitLibrary, "driver"},
		{"no model", whole, "", t.TempDir(), build.ExitRefused, "model.yaml"},
		{"other model", whole, "", "builtin:unicorns", build.ExitRefused, "builtin:parcels"},
		{"gate not passed", whole, "", promising(t), build.ExitRefused, "accuracy gate not passed"},
		{"gate not passed, again", whole, "", promising(t), build.ExitRefused, "--anew tries again"},
		{"gate of a mended package", whole, "", "builtin:parcels", 0, "\"done\""},
		{"device lost", whole, "FULMAR_DOUBLE_STICKY=2", "builtin:parcels", build.ExitDevice, "GPU was lost"},
		{"good", whole, "FULMAR_DOUBLE_BUILDMS=300", "builtin:parcels", 0, "\"done\""},
		{"again", whole, "", "builtin:parcels", 0, "\"already\":true"},
	} {
		folder := kept
		if strings.HasPrefix(c.name, "gate") {
			folder = kept + "-gate" // what is refused there is the network, whatever its card
		}
		cmd := command(t, c.dir, "model", "build", "--progress=json", "--cache", folder, "--batch", "1", c.path)
		cmd.Env = append(cmd.Env, c.env)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.say) {
			t.Errorf("%s: exit code %d, wants %d\n%s", c.name, code, c.code, out)
		}
		left, err := filepath.Glob(filepath.Join(kept, ".*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", c.name, left, err)
		}
	}
}

// A build that is told to end leaves no half engine but what it timed, and the next
// one is faster by that. It is humble while it runs.
func TestModelBuildCancelled(t *testing.T) {
	double, kept := trttest.Double(t, 10), filepath.Join(t.TempDir(), "engines")
	cmd := command(t, double, "model", "build", "--progress=json", "--memory", "2048", "--cache", kept, "--batch", "1", "builtin:parcels")
	cmd.Env = append(cmd.Env, "FULMAR_DOUBLE_BUILDMS=20000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := json.NewDecoder(out)
	var l build.Line
	for l.Progress == nil || l.Progress.Percent < 10 {
		if err := lines.Decode(&l); err != nil {
			t.Fatal(err)
		}
	}
	humble(t, cmd.Process.Pid)
	// A second one waits its turn and can be told to end too.
	second := command(t, double, "model", "build", "--progress=json", "--cache", kept, "--batch", "1", "builtin:parcels")
	waiting, err := second.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	var w build.Line
	if err := json.NewDecoder(waiting).Decode(&w); err != nil || !w.Waiting {
		t.Errorf("the second one says %+v, %v", w, err)
	}
	for _, c := range []*exec.Cmd{second, cmd} {
		start := time.Now()
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		if code := c.ProcessState.ExitCode(); code != build.ExitCancelled || time.Since(start) > 5*time.Second {
			t.Errorf("exit code %d after %v", code, time.Since(start))
		}
	}
	names, err := os.ReadDir(kept)
	if err != nil {
		t.Fatal(err)
	}
	timing := 0
	for _, n := range names {
		switch {
		case strings.HasPrefix(n.Name(), "timing-"):
			timing++
		case n.Name() != "lock" && n.Name() != "build.lock":
			t.Errorf("it left %s", n.Name())
		}
	}
	if timing != 1 {
		t.Errorf("%d timing caches after the cancelling", timing)
	}
}

// humble looks at a build's priorities and bounds in /proc.
func humble(t *testing.T, pid int) {
	t.Helper()
	tasks, err := filepath.Glob(filepath.Join("/proc", itoa(pid), "task", "*"))
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(filepath.Join(task, "stat"))
		if err != nil {
			continue // it ended
		}
		_, after, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(after); f[16] != "10" {
			t.Errorf("thread %s has niceness %s", filepath.Base(task), f[16])
		}
	}
	score, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "oom_score_adj"))
	if err != nil || strings.TrimSpace(string(score)) != "900" {
		t.Errorf("oom_score_adj %s, %v", score, err)
	}
	limits, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "limits"))
	if err != nil || !strings.Contains(string(limits), "Max data size             2147483648") {
		t.Errorf("limits %s, %v", limits, err)
	}
	if out, err := exec.Command("ionice", "-p", itoa(pid)).Output(); err != nil || strings.TrimSpace(string(out)) != "idle" {
		t.Errorf("ionice %s, %v", out, err)
	}
}
