// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package maker makes the patches that package delta applies. The fleet server and the
// fulmar command line link it; a board never does.
//
// Make tries the codecs that fit a pair of files and keeps the shortest patch, but no
// patch leaves it that was not applied first. The same pair gives the same bytes each
// time, with one version of this module.
//
// Calls beside each other are safe, at the price of their memory: bsdiff and elf hold
// both files and about 9 bytes more for each byte of the base, words and zstd what
// they compressed so far and 100 MB of compressors.
package maker
