// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package memdisk makes block devices whose every write and flush is seen: a FUSE
// file in memory under a loop device. A test can take the log of what reached the
// device and when, build the state that a power loss at any moment would have left,
// and make the device slow or broken.
//
// It needs root, /dev/fuse, /dev/loop-control and mkfs.ext4; see [Missing]. A
// program that maps files of such a device into its memory must not serve it: the
// page fault would wait for a goroutine that waits for the faulting thread.
package memdisk
