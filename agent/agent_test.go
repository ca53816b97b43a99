// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/errand"
	"fulmar/agent/tally"
	"fulmar/device"
	"fulmar/inference/worker"
	"fulmar/schema"
)

// board is a real agent on this machine's sensors, without worker and without a
// fleet that answers.
type board struct {
	*Agent
	path   string
	level  *slog.LevelVar
	client *http.Client
}

const boardYAML = "board: dock-1\ndata: %s\nfleet: {address: '127.0.0.1:1', token_file: /none}\ninfer: {mode: 'off'}\nkey: {mode: software}\nsensors: {synthetic: 3}\n"

func start(t *testing.T) *board {
	t.Helper()
	// Not t.TempDir: a unix socket's path has at most 108 bytes.
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &board{path: filepath.Join(dir, "fulmard.yaml"), level: new(slog.LevelVar)}
	b.write(t, "")
	cfg, err := config.Load(b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.Agent, err = New(cfg, Options{ConfigPath: b.path, Release: "test", Root: device.NewRoot("/"), Log: slog.New(slog.DiscardHandler), Level: b.level})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		begin := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("the stop took %v", d)
		}
	})
	b.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", cfg.StatusSocket())
	}}}
	return b
}

func (b *board) write(t *testing.T, extra string) {
	t.Helper()
	if err := os.WriteFile(b.path, fmt.Appendf(nil, boardYAML+extra, filepath.Join(filepath.Dir(b.path), "data")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition of a running board.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not come: " + what)
		}
	}
}

// said lists the reports that wait in the spool for the fleet.
func (b *board) said(t *testing.T) []schema.Report {
	t.Helper()
	recs, err := b.spool.Read(schema.ClassAlarm, 1, 100, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var out []schema.Report
	for _, r := range recs {
		rec, err := schema.DecodeRecord(r.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Report != nil {
			out = append(out, *rec.Report)
		}
	}
	return out
}

func TestBoardWithoutAFleet(t *testing.T) {
	t.Parallel()
	b := start(t)
	until(t, "samples in the spool", func() bool { return b.spool.Stats().Classes[schema.ClassMetric].Outstanding >= 2 })
	var h Health
	until(t, "health on the socket", func() bool {
		resp, err := b.client.Get("http://board/healthz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return json.NewDecoder(resp.Body).Decode(&h) == nil && len(h.Causes) > 0
	})
	if h.OK || h.Worker != "off" || !strings.Contains(h.Causes[0], "join token") {
		t.Errorf("health %+v, wants the cause: no join token", h)
	}
	resp, err := b.client.Get("http://board/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`fulmar_spool_outstanding_records{class="metric"}`, "fulmar_link_up 0", `fulmar_build_info{version="test"} 1`, "fulmar_schedule_ticks_total"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// TestReload: a good change is applied without restart, a broken one is refused
// with its line and the last good config goes on.
func TestReload(t *testing.T) {
	t.Parallel()
	b := start(t)
	has := func(subject, state, text string) func() bool {
		return func() bool {
			return slices.ContainsFunc(b.said(t), func(r schema.Report) bool {
				return r.Subject == subject && r.State == state && strings.Contains(r.Text, text)
			})
		}
	}
	until(t, "the report of the first config", has("config", "ok", ""))
	b.write(t, "log: {level: debug}\n")
	until(t, "the log level", func() bool { return b.level.Level() == slog.LevelDebug })
	cfg := b.config()
	until(t, "its copy", func() bool { // kept after it is in force
		text, err := os.ReadFile(cfg.LastGoodPath())
		return err == nil && strings.Contains(string(text), "level: debug")
	})
	b.write(t, "log: {levle: debug}\n")
	until(t, "the report of the broken config", has("config", "refused", `did you mean "level"?`))
	if b.config().Log.Level != "debug" {
		t.Errorf("the broken config changed the running one: %+v", b.config().Log)
	}
	c, broken, err := config.LoadOrLastGood(b.path)
	if err != nil || broken == nil || c.Log.Level != "debug" {
		t.Errorf("a restart now gives level %v, broken %v, err %v; wants the last good one", c, broken, err)
	}
}

// TestReloadOfDropIns: a folder of drop-ins that appears, changes and goes is followed.
func TestReloadOfDropIns(t *testing.T) {
	t.Parallel()
	b := start(t)
	level := func(l slog.Level) func() bool { return func() bool { return b.level.Level() == l } }
	until(t, "the report of the first config", func() bool { return len(b.said(t)) > 0 })
	dir := config.DropInDir(b.path)
	drop := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	drop("10-log.yaml", "log: {level: debug}\n")
	until(t, "the first drop-in", level(slog.LevelDebug))
	drop("20-log.yaml", "log: {level: error}\n")
	until(t, "one over it", level(slog.LevelError))
	cfg := b.config()
	until(t, "its copy", func() bool { // kept after it is in force
		text, err := os.ReadFile(cfg.LastGoodPath())
		return err == nil && strings.Contains(string(text), "level: error")
	})
	drop("20-log.yaml", "log: {level: loud}\n")
	until(t, "the refusal", func() bool {
		return slices.ContainsFunc(b.said(t), func(r schema.Report) bool { return r.State == "refused" && strings.Contains(r.Text, "20-log.yaml") })
	})
	if c, broken, err := config.LoadOrLastGood(b.path); err != nil || broken == nil || c.Log.Level != "error" {
		t.Errorf("a restart now gives %+v, broken %v, err %v; wants the last good one", c, broken, err)
	}
	if err := os.Remove(filepath.Join(dir, "20-log.yaml")); err != nil {
		t.Fatal(err)
	}
	until(t, "the drop-in's end", level(slog.LevelDebug))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	until(t, "the folder's end", level(slog.LevelInfo))
	drop("10-log.yaml", "log: {level: warn}\n")
	until(t, "the folder that is back", level(slog.LevelWarn))
}

func TestReportsTravelOnChangeOnly(t *testing.T) {
	t.Parallel()
	r := reports{last: map[string]schema.Report{}}
	ok := schema.Report{Subject: "worker", State: "ok"}
	if !r.changed(ok) || r.changed(ok) {
		t.Error("the same state was not said exactly once")
	}
	if !r.changed(schema.Report{Subject: "worker", State: "restarting"}) || !r.changed(ok) {
		t.Error("a change was not said")
	}
	for i := range 2 * maxSubjects {
		r.changed(schema.Report{Subject: fmt.Sprint("camera/", i)})
	}
	if len(r.last) > maxSubjects {
		t.Errorf("%d subjects are kept, at most %d", len(r.last), maxSubjects)
	}
}

func TestWordsOfAWorker(t *testing.T) {
	t.Parallel()
	got := errand.Causes(&worker.Status{
		Models:  []worker.ModelStatus{{Name: "m", State: "refused", Error: "golden check not passed"}, {Name: "n", State: "ready"}},
		Cameras: []worker.CameraStatus{{Name: "c", State: "failed", Error: "folder is empty"}, {Name: "d", State: "running"}},
	})
	if want := []string{"model m: golden check not passed", "camera c: folder is empty"}; !slices.Equal(got, want) {
		t.Errorf("got %q, wants %q", got, want)
	}
}

// What a worker's end is called, and what a model on its fallback looks like from
// outside: it sees, so the board is well, and the reason stands beside it.
func TestWordsOfTheGPU(t *testing.T) {
	t.Parallel()
	if got := errand.Death(worker.EndDeviceLost, "worker: exit status 5", 2); got != "the inference worker lost the GPU and was started again to get it back, for the 2nd time; sampling went on" {
		t.Errorf("a lost GPU is called %q", got)
	}
	if got := errand.Death(worker.EndKilled, "worker: signal: killed", 1); !strings.Contains(got, "died (worker: signal: killed)") {
		t.Errorf("a killed one is called %q", got)
	}
	m := worker.ModelStatus{Name: "m", State: "ready", Engine: "onnxruntime-cpu/int8", EngineVersion: "ONNX Runtime 1.30.0", Build: "building, 40 %", Fallback: "not built yet"}
	if got, want := errand.Model(&m), "model m runs on onnxruntime-cpu/int8 (ONNX Runtime 1.30.0): not built yet"; got != want {
		t.Errorf("got %q, wants %q: how far a build is would be a report each second", got, want)
	}
	if got := errand.Causes(&worker.Status{Models: []worker.ModelStatus{m}}); len(got) > 0 {
		t.Errorf("a fallback is a cause of ill health: %q", got)
	}
	a := &Agent{}
	a.status.setWorker(worker.Status{Models: []worker.ModelStatus{m}})
	if got := a.models(); len(got) != 1 || got[0] != (ModelHealth{"m", "ready", m.Engine, m.EngineVersion, m.Build, m.Fallback}) {
		t.Errorf("health tells %+v", got)
	}
}

// What the agent counts of its worker and its models, as metrics.
func TestWorkerMetrics(t *testing.T) {
	t.Parallel()
	w := &worker.Status{Models: []worker.ModelStatus{
		{Name: "m", Engine: "onnxruntime-cpu/int8", Fallback: "no TensorRT"}, {Name: "n", Engine: "tensorrt/int8"},
	}}
	got := map[string]float64{}
	tally.Worker(
		func(name, _ string, v float64, labels ...string) { got[name+strings.Join(labels, " ")] = v },
		func(name, _ string, v uint64, labels ...string) { got[name+strings.Join(labels, " ")] = float64(v) },
		w, &worker.Child{},
	)
	for name, want := range map[string]float64{
		"model_fallbackmodel m engine onnxruntime-cpu/int8": 1, "model_fallbackmodel n engine tensorrt/int8": 0,
		"worker_ends_totalcause gpu_lost": 0, "worker_ends_totalcause signal": 0, "worker_ends_totalcause error": 0, "worker_ends_totalcause itself": 0,
	} {
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s is %v, wants %v", name, v, want)
		}
	}
}
