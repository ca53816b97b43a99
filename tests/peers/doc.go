// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// The program peers measures the spool against other stores of records: bbolt,
// SQLite, pebble and tidwall/wal, all synced, in the same run on the same disk.
// It is a module of its own, so that fulmar does not depend on what it is
// compared with. Bytes written are those of /proc/self/io (write_bytes): pages
// that this process made dirty in files, without the journal of the file system.
//
// Two things do not compare like with like. In drain each peer syncs every delete
// while the spool writes its cursor later (a crash gives records again). And what is
// left is the length of the files of an open store: the spool's is taken without
// its Run, right after the last acknowledgement.
package main
