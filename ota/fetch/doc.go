// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package fetch brings objects onto a board: over MQTT, over HTTP from the fleet or from
// another board. Wherever a piece comes from, it is proven to be that of the object before
// it is written, and the SHA-256 of the whole decides.
//
// In the folder of a [Fetcher] an object on its way is TREE.part, at its full size from
// the beginning, so that a full disk is seen first, and TREE.leaves, the hashes of the pieces
// that are there. Both are synced with each MiB; a start reads what is there and believes
// the pieces that still have their hash. A whole object is TREE.
//
// # Sources
//
// A [Source] brings pieces of a [Job] until there is no more to do, or it cannot. Sources are
// tried in their order; the next one begins when those before it have ended or have stood
// still for a while, and then they go on side by side: each claims the pieces that it is
// about to bring, so none comes twice without need. When all have ended, they are tried
// again after a while that grows.
//
// # Memory
//
// A source holds a piece or a few; a job a bit for each piece and 64 hashes.
package fetch
