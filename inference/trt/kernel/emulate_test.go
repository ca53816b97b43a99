// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"fulmar/inference/tensor"
	"fulmar/inference/trt/kernel"
)

// onDevice is the environment's word for a program that runs the kernels on a device
// instead, made in this folder by
//
//	cc -DDEVICE -Isrc -o PROGRAM testdata/emulate.c testdata/device.c -ldl
const onDevice = "FULMAR_KERNEL_PROGRAM"

// build compiles the kernels for the CPU.
func build(t *testing.T) string {
	t.Helper()
	if program := os.Getenv(onDevice); program != "" {
		return program
	}
	if _, err := exec.LookPath("cc"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("there is no C compiler")
	}
	out := filepath.Join(t.TempDir(), "emulate")
	cmd := exec.CommandContext(t.Context(), "cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-ffp-contract=off",
		"-Isrc", "-o", out, "testdata/emulate.c", "src/kernel.c")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, msg)
	}
	return out
}

// emulation is a process that runs kernels on the CPU.
type emulation struct {
	in  io.Writer
	out io.Reader
	log bytes.Buffer
}

func emulate(t *testing.T) *emulation {
	t.Helper()
	// The test's own context ends before its cleanup, where the process should end in peace.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), build(t))
	e := &emulation{}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	e.in, e.out, cmd.Stderr = in, out, &e.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("the emulation ended with %v: %s", err, &e.log)
		}
	})
	return e
}

// run launches a kernel once. src is the source's memory, at the place in it of its
// address.
func (e *emulation) run(t *testing.T, name string, p *kernel.Params, src []byte, at int) []float32 {
	t.Helper()
	var b bytes.Buffer
	var n [16]byte
	copy(n[:], name)
	grid, block := p.Grid()
	for _, v := range []any{n, grid, block, uint64(len(src)), uint64(at), p} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	dst := make([]byte, 4*3*p.DstWidth*p.DstHeight)
	if _, err := e.in.Write(append(b.Bytes(), src...)); err != nil {
		t.Fatalf("%s: %v: %s", name, err, &e.log)
	}
	if _, err := io.ReadFull(e.out, dst); err != nil {
		t.Fatalf("%s %+v: %v: %s", name, *p, err, &e.log)
	}
	out := make([]float32, len(dst)/4)
	if _, err := binary.Decode(dst, binary.LittleEndian, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// want is what package tensor makes of a picture.
func want(t *testing.T, spec tensor.Spec, img image.Image) ([]float32, tensor.Mapping) {
	t.Helper()
	dst := make([]float32, 3*spec.Width*spec.Height)
	p, err := tensor.NewPrep(spec, dst)
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Run(img)
	if err != nil {
		t.Fatal(err)
	}
	return dst, m
}
