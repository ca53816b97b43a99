// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package trt builds and runs networks with NVIDIA TensorRT.
//
// # No library at build time
//
// libnvinfer, libnvonnxparser and libcuda are opened at run time by their paths, and
// no NVIDIA header is in this repository: a C shim calls the methods of TensorRT's
// C++ objects by their place in the vtable. Those places, some numbers of enums and
// the size of one struct differ between the majors 8, 10 and 11 and are the same
// inside one; tables.h has them, made from abi/abi.txt, which a program checks
// against real headers kept elsewhere (make verify-trt-abi, docs/tensorrt-abi.md). So
// one binary serves JetPack 5, 6 and 7. A major that is not in the tables is refused.
// TensorRT for RTX 1.x, for desktops, has the interface of 11 and is taken too.
//
// # Owners
//
// A [Library] is what was opened; it makes plans ([Library.Build]) and engines of
// plans ([Library.Load]). An [Engine] belongs to one goroutine at a time; several run
// side by side, and a Library may be used by any goroutine. Closing a Library waits
// for nobody: it refuses while engines are open. Each call into C makes the device's
// context current on its thread, so that goroutines may move. What is used after
// Close gives [ErrClosed]; what is dropped without Close is logged as a fault.
//
// # Memory
//
// Inputs and outputs lie in page-locked memory of the driver, on boards in memory
// that CPU and GPU share, never on the Go heap. A run allocates nothing.
//
// # Errors
//
// Each failed call is a [CallError] that names it, and wraps one of the Err values. An
// error that wraps [ErrDevice] means that the device's context is lost: no call works
// any more and nothing can be freed; only a new process helps.
package trt
