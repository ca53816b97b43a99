// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package diskfaults holds a real spool on a real ext4 against disks that are slow
// to flush, fail or turn read-only. The disk is served by a process of its own (see
// package memdisk for why). There is no code here but tests.
package diskfaults
