// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package cache keeps engines that were built on this board.
//
// An engine is kept by what it was built of and for ([Key]): another network,
// library, GPU, L4T release or build option is another engine. An entry is written
// beside its place, synced and renamed, so a half one is never seen; it is verified
// at each load. The least recently used go when the folder is over its bounds, those
// in use never. Several processes may share the folder: short locks guard what
// changes, and an engine in use is held by a lock that ends with its process.
//
// A [Record] beside the entries tells of a key what must not be forgotten with the
// entry: that its engine was refused, and how often a process died while it ran.
// After [MaxTries] deaths it is not to be used again.
//
// A [Cache] may be used by any goroutine, an [Entry] by one at a time.
package cache
