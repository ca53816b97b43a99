// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ort runs networks with ONNX Runtime on the CPU. The library is opened at
// run time by its path, so a program that links this package starts without it and
// says in one line what is missing; cross/ort/fetch puts it into .cache/.
//
// ONNX Runtime has one environment for a process, so there is one [Runtime]; each
// [Session] belongs to one goroutine at a time, several may run side by side. Inputs
// and outputs are mapped memory of fixed shape, made once: a run allocates nothing
// on the Go heap, and no Go pointer is kept by C.
package ort
