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
	"testing"

	"fulmar/inference/trt/trttest"
)

// What doctor finds, chooses and advises, case by case, and how it ends.
func TestDoctor(t *testing.T) {
	lib, empty := library(t), t.TempDir()
	whole := trttest.Double(t, 10)
	kept := filepath.Join(t.TempDir(), "engines")
	buildNow(t, whole, kept)
	if err := os.Truncate(filepath.Join(kept, "lock"), 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, ort, trt, cache string
		code                  int
		choice                string
		says                  []string
	}{
		{"all", lib, whole, kept, 0, "models run on TensorRT 10.3.0 on Double GPU; on ONNX Runtime until", []string{
			"ok       TensorRT         " + whole, "libnvonnxparser.so.10", "libcuda.so.1", "compute capability 8.7, 16 SMs", "0 cores",
			": 1 engines", "parcels@1 int8+fp16 of TensorRT 10.3.0 on Double GPU", "this is no Jetson",
		}},
		{"no TensorRT", lib, empty, kept, 0, "models run on ONNX Runtime, on the CPU", []string{
			"missing  TensorRT", "looked in " + empty, "-> on a Jetson: sudo apt install nvidia-jetpack", "missing  CUDA driver", "--gpus all",
		}},
		{"no driver", lib, trttest.Double(t, 10, trttest.WithoutDriver()), kept, 0, "models run on ONNX Runtime, on the CPU", []string{"missing  CUDA driver", "but no CUDA driver"}},
		{"no parser", lib, trttest.Double(t, 10, trttest.WithoutParser()), kept, 0, "models run on TensorRT", []string{"missing  ONNX parser", "none can be built"}},
		{"unknown major", lib, trttest.Double(t, 10, trttest.UnknownMajor(12)), kept, 0, "models run on ONNX Runtime, on the CPU", []string{"wrong    GPU", "12.0.0"}},
		{"no ONNX Runtime", filepath.Join(empty, "none.so"), whole, kept, 0, "there is no ONNX Runtime to go before", []string{"wrong    ONNX Runtime", "no such file"}},
		{"nothing", filepath.Join(empty, "none.so"), empty, filepath.Join(empty, "none"), 1, "no model can run here", []string{"is not there: no engine was built yet"}},
	} {
		for _, format := range []string{"", "--json"} {
			cmd := doctorCommand(t, c.ort, c.trt, c.cache, format)
			out, _ := cmd.Output()
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("%s%s: exit code %d, wants %d", c.name, format, code, c.code)
			}
			if format == "" {
				for _, want := range append(c.says, c.choice) {
					if !strings.Contains(string(out), want) {
						t.Errorf("%s: no %q in\n%s", c.name, want, out)
					}
				}
				continue
			}
			var d diagnosis
			if err := json.Unmarshal(out, &d); err != nil || d.OK != (c.code == 0) || !strings.Contains(d.Choice, c.choice) {
				t.Errorf("%s: %v\n%s", c.name, err, out)
			}
			for _, f := range d.Findings {
				if !slices.Contains([]string{"ok", "missing", "wrong"}, f.State) || f.State != "ok" && f.Advice == "" {
					t.Errorf("%s: %+v: what is not ok wants advice", c.name, f)
				}
			}
		}
	}
}

func doctorCommand(t *testing.T, ort, trt, kept, format string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, slices.DeleteFunc([]string{"--ort", ort, "--trt", trt, "doctor", "--cache", kept, format}, func(s string) bool { return s == "" })...)
	cmd.Env = []string{roleEnv + "=infer"}
	return cmd
}
