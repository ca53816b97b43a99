// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package kernel is the way from a picture to a network's input on an NVIDIA device: the
// same as [tensor.Prep], bit for bit, as a CUDA kernel that the driver compiles from
// [PTX] at load.
//
// [Plan] computes what the kernel has to know of a picture's size; the two addresses are
// the caller's to fill in. A launch has no memory: it writes all of the input, padding
// too. [PlanNV12] does the same for pictures in two planes, as cameras and decoders of
// these boards give them, and [NV12.RGBA] is what that kernel makes of the colours.
//
// The arithmetic stands in src/kernel.c, which is CUDA C and plain C at once: tests run
// it on the CPU against package tensor. prep.ptx is made of it by cross/ptx.
package kernel
