// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package delta applies the patches of over-the-air updates: small files that turn
// what a board has into what it is to have. Package ota/delta/make makes them.
//
// A codec is named in the signed manifest:
//
//	zstd    no patch: the whole file as one plain zstd frame, also for `zstd -d`
//	bsdiff  copies of the base with differences, and new bytes between them
//	elf     the same for programs, with references guessed (internal/predict)
//	words   the same for weights, with differences of whole words in planes of bytes
//
// How a patch lies in a file is told in internal/format.
//
// What comes out is written in order to an io.Writer: prediction reads the base and
// the list of copies alone, never what it wrote, so a socket, a file or a hash will
// do, and a power cut leaves a prefix. Base and patch are read at any place, so both
// are files; a patch is a few streams that are read side by side.
//
// Nothing of a patch is believed. Memory is bounded by Limits whatever it says, time
// by the sizes of patch and output, and the output by the size in the manifest. The
// SHA-256 of what came out decides: until Apply returned nil, what was written is
// rubbish, and who called throws it away.
//
// Apply holds no state; calls beside each other are safe if their files are.
package delta
