// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package tensor holds what goes into a network and what comes out of it: fixed
// blocks of memory outside the Go heap, seen as [Tensor], and the way from a
// picture to such a block, [Prep].
//
// The memory is mapped, never of the Go heap: an engine keeps its address between
// calls, which Go's own memory must not be used for. It is wrapped once, by
// [Tensor.Dense] as a *Dense of gorgonia.org/tensor, and nothing is allocated for
// a frame.
//
// A Tensor and a Prep belong to one goroutine at a time. After [Tensor.Free] the
// slices that the tensor gave out must not be touched: their memory is gone.
package tensor
