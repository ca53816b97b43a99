// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package files is the segment files of one class on disk, as a chain: the newest
// is appended to while the handle that made it is open, the others are sealed,
// only read, and removed whole. It knows which numbers lie in which file and
// nothing of who has which number; its one user at a time is chain.
package files
