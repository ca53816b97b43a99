// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package salvage reads the spool of a board that does not run any more: from its
// disk, a copy or an image, mounted read-only if one likes.
//
// It changes nothing, takes no lock and needs nothing to be whole. A segment is
// taken into memory (one at a time, 16 MiB as a rule), so a bad sector costs the
// records that lie in it and nothing else. What cannot be read is told by file and
// number: see [Report]. Segments in quarantine, which the board could not read and
// told the fleet as lost, are read like the others: with the recovery key, or past
// the damage, they often can be.
//
// A record counts as settled where the class's meta says that the fleet has it, or
// has been told that it is lost. The last half second of acknowledgements before a
// crash may be missing there, so a record may be at the fleet and count as waiting;
// never the other way round. Its identity (board, class, epoch, number) tells.
package salvage
