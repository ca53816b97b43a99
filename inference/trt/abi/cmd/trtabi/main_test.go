// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testdata = "../../testdata/"

func TestHeader(t *testing.T) {
	t.Parallel()
	to := filepath.Join(t.TempDir(), "tables.h")
	if err := run([]string{"header", "../../abi.txt", to}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	if err != nil || !strings.Contains(string(got), "FL_Runtime_deserializeCudaEngine,") {
		t.Errorf("no table in %s: %v", to, err)
	}
}

func TestAdd(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(testdata + "abi.txt")
	if err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(t.TempDir(), "abi.txt")
	if err := os.WriteFile(table, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"x", "2"} {
		if err := run([]string{"add", table, bad}, nil); err == nil {
			t.Errorf("major %s after 2 is taken", bad)
		}
	}
	if err := run([]string{"add", table, "3"}, nil); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(table); err != nil || !strings.Contains(string(text), "method sleep                                      6@1.2     8         8         void(bool)\n") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestVerify: all folders are looked at, and one that differs is an error.
func TestVerify(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("g++"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("g++ is not installed")
	}
	var out strings.Builder
	if err := run([]string{"verify", testdata + "abi.txt", testdata + "1.2", testdata + "2.0"}, &out); err != nil || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("%v\n%s", err, &out)
	}
	text, err := os.ReadFile(testdata + "abi.txt")
	if err != nil {
		t.Fatal(err)
	}
	shifted := filepath.Join(t.TempDir(), "abi.txt")
	if err := os.WriteFile(shifted, []byte(strings.Replace(string(text), "value  kBLUE                1 ", "value  kBLUE                7 ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	err = run([]string{"verify", shifted, testdata + "1.2", testdata + "2.0"}, &out)
	if err == nil || !strings.Contains(err.Error(), "1 of 2 versions differ") || !strings.Contains(out.String(), "Colour::kBLUE") {
		t.Errorf("%v\n%s", err, &out)
	}
}

func TestUse(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"verify", "abi.txt"}, {"guess", "../../abi.txt", "x"}, {"header", "nowhere.txt", "x"}, {"header", "main.go", "x"}} {
		if err := run(args, nil); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want an error of one line", args, err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "../../../../../cross/verify-trt-abi").CombinedOutput()
	if err == nil || string(out) != "give the folder that holds NvInfer.h of one version: make verify-trt-abi TRT_INCLUDE=DIR\n" {
		t.Errorf("without a folder: %v, %q", err, out)
	}
}
