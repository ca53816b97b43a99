// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package abi keeps what the TensorRT bridge knows of the library's binary interface:
// which slot of which vtable a method has, the numbers of enumerations, the bytes of
// structs, for each major version. One reviewed file says it, abi.txt; the C table
// ../tables.h is made from it ([Table.Header]), and [Verify] holds it against real
// headers, which stay outside the repository (make verify-trt-abi).
package abi

//go:generate go run fulmar/inference/trt/abi/cmd/trtabi header abi.txt ../tables.h
