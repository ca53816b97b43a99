// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package trttest makes a double of libnvinfer, libnvonnxparser and libcuda for tests on
// machines without NVIDIA software. It is a shared object of plain C, compiled by cc when
// a test asks for it, with the slots of inference/trt/tables.h for one major version. It
// parses ONNX, builds and reads plans, and computes small networks on the CPU; what is
// not among its methods, and what would crash the real libraries, ends the process with a
// line that begins with "double: ".
//
// A test steers it by environment variables, FULMAR_DOUBLE_ and one of:
//
//	SHIFT=Class::method  that method sits one slot further; its own slot ends the process
//	OOM=n                the n-th memory taken on the device or page-locked fails
//	STICKY=n             the n-th enqueue, graph launch or stream synchronize fails, and all after it
//	DRIVER=11040         what cuDriverGetVersion says
//	CC=87                compute capability of the device
//	INTEGRATED=1         the device shares the host's memory, as on a Jetson
//	DLA=2                DLA cores
//	MEMORY=8192          MiB of device memory
//	BUILDMS=500          how long a build with an empty timing cache takes
//	FAILBUILD=1          a build fails
//	NODRIVER=1           cuInit finds no device
//	LAZY=1               a stream works only when it is waited for: results read too early are old ones
//	LIVE_AT_EXIT=PATH    "live N: names" of what is not freed lies there, when the process ends too; for one double a process
//
// They are read when the library is loaded and again at each call that is not part of a
// run. fl_double_live and fl_double_leaks of the library tell what lives.
package trttest
