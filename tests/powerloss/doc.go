// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package powerloss cuts the power under a real spool on a real ext4 and looks
// whether it kept its word. There is no code here but tests.
//
// A child process works with a spool on a disk of package memdisk: opens it, rolls
// many small segments, reads, acknowledges, refuses, lets quotas evict, closes, or
// is killed. What it knows to be durable it notes in the log of the disk itself, so
// that each note has its place between the writes and flushes. Then, for many
// positions of the log, a disk is made that holds all that was flushed by then and
// a random part of what was written later, torn at 512 bytes; ext4 replays its
// journal, another child opens the spool there and tells what it finds, and that is
// compared with the notes before that position:
//
//   - what Append or Flush had said to be durable reads back byte for byte, or was
//     acknowledged, or was told as evicted where the class may evict
//   - nothing else is read, nothing twice, no number is given to two records
//   - each number is a record, settled, or inside a gap
//   - no gap says "corrupt": a power loss damages nothing
//   - Open, Append and Close work, and a second Open finds the same
//
// Some points lose the power again while the spool recovers from the first loss.
// The control runs the same with Config.NoSync and must find losses.
//
// FULMAR_SOAK set makes 1,000 points instead of 300. FULMAR_POWERLOSS_SEED repeats
// a run's choices; the log itself differs a little from run to run, so a point that
// fails leaves its disk image in FULMAR_ARTIFACTS, to be mounted and looked at.
package powerloss
