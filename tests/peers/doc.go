// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// The program peers measures the spool against other stores of records: bbolt,
// SQLite, pebble and tidwall/wal, all synced, in the same run on the same disk.
// It is a module of its own, so that fulmar does not depend on what it is
// compared with.
//
// Rates are measured under TMPDIR, which should be on a disk. Bytes are counted in a
// pass of their own, on ext4 on a loop device: those given to write(2), and those that
// the device got, journal and tables of the file system included. Where there may be
// no loop device (it wants root) they are left out.
//
// In drain the clock runs until the store is closed, so until it is durable that the
// records are gone; what is left is the disk that its files then take. Each peer syncs
// each delete, as whoever uses it as a queue does, while the spool writes its cursor
// twice a second (a crash gives the records of that time again): BenchmarkDrain in
// storage measures what that makes.
package main
