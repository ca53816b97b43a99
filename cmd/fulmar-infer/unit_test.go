// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/inference/engines/build"
	"fulmar/inference/trt/trttest"
	"fulmar/inference/worker"
)

// buildSocket does what fulmar-build.socket does: each connection becomes standard input
// of the real program.
type buildSocket struct {
	path string

	mu    sync.Mutex
	codes []int // of the builds that ended
	began int
}

func newBuildSocket(t *testing.T, dir, trt string) *buildSocket {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &buildSocket{path: filepath.Join(dir, "b.sock")}
	ln, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	env := append(doubleEnv(), roleEnv+"=infer")
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f, err := c.(*net.UnixConn).File()
			c.Close()
			if err != nil {
				t.Error(err)
				return
			}
			s.mu.Lock()
			s.began++
			s.mu.Unlock()
			wg.Go(func() {
				defer f.Close()
				cmd := exec.Command(self, "--trt", trt, "model", "serve-build")
				cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, f, f, t.Output()
				_ = cmd.Run() // its code is what is looked at
				s.mu.Lock()
				s.codes = append(s.codes, cmd.ProcessState.ExitCode())
				s.mu.Unlock()
			})
		}
	})
	return s
}

func (s *buildSocket) ends() (began int, codes []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.began, slices.Clone(s.codes)
}

// The worker asks for its engine over the socket of builds, sees meanwhile, and takes
// the engine over; no build is a child of it.
func TestEngineIsBuiltInAUnit(t *testing.T) {
	double, dir := trttest.Double(t, 10), shortDir(t)
	t.Setenv("FULMAR_DOUBLE_BUILDMS", "1000")
	units := newBuildSocket(t, dir, double)
	d := newDesk(t, "--ort", library(t), "--trt", double, "--builds", units.path)
	d.patience, d.listen = 90*time.Second, 10*time.Second
	if err := d.client.Update(gpuSetup(d, filepath.Join(dir, "engines"))); err != nil {
		t.Fatal(err)
	}
	d.model(t, "the build to be on its way", func(m worker.ModelStatus) bool { return strings.Contains(m.Build, "building, ") })
	d.model(t, "the engine to take over", func(m worker.ModelStatus) bool { return m.Engine == "tensorrt/int8" })
	if began, _ := units.ends(); began != 1 {
		t.Errorf("%d builds began in units, wants 1", began)
	}
}

// A build ends with the connection that asked for it, and one that asks for nonsense is
// told so.
func TestBuildUnitEnds(t *testing.T) {
	double, dir := trttest.Double(t, 10), shortDir(t)
	t.Setenv("FULMAR_DOUBLE_BUILDMS", "60000")
	units := newBuildSocket(t, dir, double)
	end := func(what string, want int) {
		t.Helper()
		began, _ := units.ends()
		for until := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, codes := units.ends(); len(codes) == began {
				if codes[began-1] != want {
					t.Errorf("%s ended with code %d, wants %d", what, codes[began-1], want)
				}
				return
			}
			if time.Now().After(until) {
				t.Fatalf("%s goes on", what)
			}
		}
	}
	ask := func(request string) (net.Conn, *bufio.Scanner) {
		c, err := net.Dial("unix", units.path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte(request + "\n")); err != nil {
			t.Fatal(err)
		}
		return c, bufio.NewScanner(c)
	}
	_, lines := ask(`{"path":"builtin:parcels","anew":true}`)
	var l build.Line
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &l) != nil || l.Code != build.ExitRefused || !strings.Contains(l.Error, "unknown field") {
		t.Errorf("nonsense: %s", lines.Text())
	}
	end("nonsense", build.ExitRefused)
	request, err := json.Marshal(build.Request{Path: "builtin:parcels", Cache: filepath.Join(dir, "engines"), MaxBatch: 1, Level: -1, DLACore: -1})
	if err != nil {
		t.Fatal(err)
	}
	c, lines := ask(string(request))
	for l = (build.Line{}); l.Progress == nil && lines.Scan(); {
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
	}
	if l.Progress == nil {
		t.Fatalf("no progress, the last line is %s", lines.Text())
	}
	c.Close()
	end("a build whose worker is gone", build.ExitCancelled)
}

// shortDir is one whose sockets have short enough names.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
