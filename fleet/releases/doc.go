// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package releases keeps what boards can be updated to: signed manifests, in the
// registry's database, and their objects, on disk.
//
// A release comes in three steps. [Releases.Begin] takes the signed manifest: enough
// release keys of the key set in force have signed it, its epoch is not below one that was
// known here, and its name is not that of another content. [Releases.Put] takes each object that is
// missing, a cut upload goes on where it was. [Releases.Complete] makes it one that rollouts
// take. What a board takes is decided by the board, from the same signatures: the fleet
// checks them so that people hear of a fault before boards do.
//
// For boards that run something else of the same component the fleet makes patches, see
// [Releases.Run].
package releases
