// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package ingest takes what boards deliver and makes it durable, once.
//
// A caller (the gateway) hands a message over with [Ingest.Publish] and waits:
// when it returns nil, the message's effect and the proof that its records have
// arrived are in the same committed transaction, and the board may be told to
// forget them. When it returns an error nothing was kept and the board must send
// again.
//
// One goroutine, inside [Ingest.Run], writes. It takes whatever has queued up
// since the last commit into one transaction, so that the cost of a sync to disk
// is shared by all boards that wait. Messages are decoded, and pictures checked,
// by the callers before they queue.
//
// # What is a duplicate
//
// For each (tenant, board, class, epoch) a [Book] knows which numbers have
// arrived: a high-water mark and a set of ranges above it. A record whose number
// has arrived is counted and has no effect. Gap records name numbers that will
// not come; should one come all the same (a board's disk came back), it counts as
// arrived and no longer as lost.
//
// # What can never be understood
//
// A message of an enrolled board that does not decode will not decode the next
// time either. Answering with silence would make the board send it for ever and
// block everything behind it, so it is taken: a row in table refused says what and
// why, the numbers known to have been in it are booked as lost in the same
// transaction, and a report tells a person. Within a good message one bad record is
// refused and booked alone. Where not even the numbers are known, the board's next
// hello tells what it let go of that is not here.
//
// A message of a newer wire version is another matter: this program cannot read it,
// the next one can. It is not taken, see [ErrNewer] and ADR 0019.
package ingest
