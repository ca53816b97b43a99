// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package gpioline drives a GPIO line of a real kernel: Debian's for arm64, on the PL061
// chip of an emulated machine. The machine has no disk: its first program (guest) runs the
// tests of device/output/gpio and turns it off.
package gpioline
