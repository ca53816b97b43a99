// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package arm64

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/device/devicetest"
	"fulmar/tests/foreign"
	"fulmar/tests/local"
	"fulmar/tests/vm"
)

// top is the repository's folder, and built where its arm64 programs are.
func top(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func built(t *testing.T) string { return filepath.Join(top(t), "out/cross/arm64") }

// wants skips a test unless the run was asked for: smoke, or all, which has smoke in it.
func wants(t *testing.T, what string) {
	t.Helper()
	asked := os.Getenv("FULMAR_ARM64")
	if asked != what && asked != "all" {
		t.Skipf("FULMAR_ARM64 is %q: type make %s-arm64", asked, map[string]string{"smoke": "smoke", "all": "test"}[what])
	}
	if err := foreign.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(built(t), "fulmar-infer")); err != nil {
		t.Fatalf("%v; run: make smoke-arm64, which builds it", err)
	}
}

// old is the oldest system a board may have, Debian 11 with glibc 2.31 as in JetPack 5.
func old(t *testing.T) string {
	t.Helper()
	dir, err := vm.Unpacked(t.Context(), filepath.Join(top(t), ".cache"), "bullseye", "arm64")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWorker: ONNX Runtime as arm64 code in Debian 11 finds what it should in the model's
// golden pictures, whose boxes amd64 finds, too; and says what the board lacks.
func TestWorker(t *testing.T) {
	wants(t, "smoke")
	t.Parallel()
	room := foreign.Room{Root: old(t), Binds: []string{built(t)}, Layer: true}
	infer := filepath.Join(built(t), "fulmar-infer")
	begin := time.Now()
	out, err := room.Command(t.Context(), infer, "model", "check", "builtin:parcels").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "4 pictures give what they should") || !strings.Contains(string(out), "ONNX Runtime 1.30") {
		t.Errorf("model check: %v\n%s", err, out)
	}
	t.Logf("in %v, emulated:\n%s", time.Since(begin).Round(100*time.Millisecond), out)
	out, err = room.Command(t.Context(), infer, "doctor").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "models run on ONNX Runtime, on the CPU") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

// TestBoard: fulmard and its worker as arm64 code in Debian 11, on the sensors of a
// Jetson as its kernel shows them, join a fleet of this machine; a record of each class
// arrives, and the books of the stopped board add up.
func TestBoard(t *testing.T) {
	wants(t, "smoke")
	t.Parallel()
	jetson := devicetest.File(t, filepath.Join(top(t), "device/jetson/testdata/orin-nano-jp6.tree"))
	dir, bin := t.TempDir(), t.TempDir()
	// What this machine starts, under the programs' names: its own fleet, and a room for
	// the board.
	foreignBin := filepath.Join(bin, "foreign")
	for out, pkg := range map[string]string{"fulmar-fleet": "fulmar/cmd/fulmar-fleet", "foreign": "fulmar/tests/foreign/cmd/foreign"} {
		build(t, filepath.Join(bin, out), pkg)
	}
	board := fmt.Sprintf("#!/bin/sh\nexec %s -root %s -layer -bind %s -bind %s -bind %s -bind %s %s/fulmard \"$@\" --sysroot %s\n",
		foreignBin, old(t), dir, bin, built(t), jetson.Path("."), built(t), jetson.Path("."))
	if err := os.WriteFile(filepath.Join(bin, "fulmard"), []byte(board), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(built(t), "fulmar-infer"), filepath.Join(bin, "fulmar-infer")); err != nil {
		t.Fatal(err)
	}
	site, err := local.New(dir, bin, filepath.Join(built(t), "libonnxruntime.so.1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := site.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(site.Fleet.Kill)
	config, err := site.PrepareBoard(local.Board{Name: "nano-1", Extra: local.SceneYAML})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	p, err := site.StartBoard("nano-1", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	api, err := site.API()
	if err != nil {
		t.Fatal(err)
	}
	first := arrived(t, api, p, "nano-1", begin, map[string]uint64{"metric": 1, "event": 5, "snapshot": 1})
	t.Logf("emulated, seconds from the start until the fleet has a metric, 5 events, a snapshot: %v", first)
	// A worker that is at a picture ends after it, which takes seconds emulated.
	if _, err := p.Stop(); err != nil && !strings.Contains(err.Error(), "after the stop: worker") {
		t.Error(err)
	}
	report, err := api.Check(t.Context(), "nano-1", local.Wanted{Sensors: 5, Samples: 3, Detections: 3})
	if t.Log(report); err != nil {
		t.Error(err)
	}
	books, err := api.Books(t.Context(), "nano-1")
	if err != nil || books.Samples["power.vdd_in_watts"] == 0 || books.Pictures == 0 {
		t.Errorf("no power rail of the Jetson, or no picture: %+v, %v", books, err)
	}
}

// arriveLimit is for an emulated worker on two busy cores: 40 s were seen.
const arriveLimit = 4 * time.Minute

// arrived waits until the fleet has so many records of each class, and tells how long
// each took since begin.
func arrived(t *testing.T, api *local.API, p *local.Proc, board string, begin time.Time, want map[string]uint64) map[string]time.Duration {
	t.Helper()
	first := map[string]time.Duration{}
	for len(first) < len(want) {
		if b, err := api.Board(t.Context(), board); err == nil {
			for _, l := range b.Ledger {
				if n, asked := want[l.Class]; asked && l.Arrived >= n && first[l.Class] == 0 {
					first[l.Class] = time.Since(begin).Round(100 * time.Millisecond)
				}
			}
		}
		ended := make(<-chan struct{})
		words := ""
		if p != nil {
			ended, words = p.Done(), p.Output()
		}
		select {
		case <-ended:
			t.Fatalf("fulmard ended:\n%s", words)
		case <-time.After(200 * time.Millisecond):
		}
		if time.Since(begin) > arriveLimit {
			t.Fatalf("after %v the fleet has %v, wants %v\n%s", arriveLimit, first, want, words)
		}
	}
	return first
}

// build builds a program for this machine.
func build(t *testing.T, out, pkg string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, b)
	}
}
