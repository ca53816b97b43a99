// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package arm64 holds the proof that what is built for boards runs as arm64 code: the
// worker, a whole board, the packages in Debian 11 to 13, and an emulated machine with
// systemd. On another processor QEMU emulates; what that cannot tell is the speed, the
// caches and the memory order of a real core.
//
//	make smoke-arm64     FULMAR_ARM64=smoke: programs and tests, in minutes
//	make test-arm64      FULMAR_ARM64=all: also the packages and the machine
package arm64
