// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package storage is what a board keeps until the fleet has it: the [Spool] of
// records and, beside it, the [Blobs] (pictures).
//
// # What is promised
//
// Each record has a number in its class, from 1, without holes. An alarm, event
// or snapshot index is on disk when Append returns nil. A metric is queued and on
// disk within its linger (1 s); only that much can be lost. While the link is up
// ([Spool.Online]) metrics are read from memory, and those acknowledged within 2 s
// are never written: on a good day telemetry costs the flash nothing. A record leaves the
// spool by [Spool.Ack], or it is lost for a reason (found here, or told by
// [Spool.Refuse]): then the reason is written
// down first, as a gap record ([schema.Gap]) in the alarm class. So each number
// reaches the fleet as a record or inside a gap. Gaps may be told twice (after a
// crash at the wrong moment); they are never missing.
//
// # On disk
//
//	Dir/lock                       held by the one process that has the spool open
//	Dir/owner                      the board whose records these are
//	Dir/boots                      how long each boot ran, where records have a time to live
//	Dir/starts                     how many starts in a row ended badly
//	Dir/keys, keys.bak             the keyring of an encrypted spool, see [fulmar/storage/vault]
//	Dir/balloon                    1 MiB, given up in steps when the disk is full, so that gaps can be written
//	Dir/<class>/meta.a, meta.b     epoch, numbers reserved, cursor
//	Dir/<class>/<first>.db         a segment: bbolt, named by its first number in 16 hex digits
//	Dir/quarantine/<class>-<first>.db   segments that could not be opened, at most 2
//
// Segments are a chain: one is appended to, the others are sealed and only read,
// and are unlinked whole when all their numbers are settled. So disk comes back,
// opening takes the same time with any backlog, and damage stays inside one file.
// A start never appends to a file that it finds, it begins another with its first
// record: writing to a damaged bbolt file can take all memory.
// A file of another name in these folders is left alone and counted.
//
// # Meta: two small files, not a database
//
// The meta of a class is 4 KiB, one page, written in place alternately to
// meta.a and meta.b with a generation and a CRC, one fdatasync each. A torn write
// spoils only the copy that was being written, and then the other, one generation
// older, is right: nothing acted yet on what the torn one would have said. A bbolt
// file for this would cost two fdatasyncs and four pages, and its damage would
// take all classes at once. If one copy is unreadable the spool skips one block of
// numbers (told as a gap), if both are, the epoch is taken from the newest segment
// or, without one, is a new one.
//
// Numbers are reserved in blocks before they are used. After a crash the files tell
// to the number what was used of alarms, events and snapshots. Metrics have their
// numbers earlier, so what was reserved of them and is in no file is written down as
// a gap with [schema.ReasonCrash], as it is of every class whose newest file is
// damaged or gone; a clean Close gives the rest of the block back.
//
// # Nearly full
//
// At 80 % of its class, and while the link is down, the oldest samples are thinned:
// one-minute summaries ([schema.Over]) are written first, then the gap with
// [schema.ReasonThinned] that names what they stand for. A full class loses its
// oldest segment (the alarm class refuses instead), a full disk the oldest segment
// of the least urgent class, gap first. Who waits for an alarm or event on a full disk
// also waits for a class that could give way and is at work. Alarms may take half of the
// balloon, gaps all of it, other records none; what gives way fills it again.
//
// # Too old
//
// Where a class has a TTL ([ClassConfig]), a read that meets records older than that
// gives them up with [schema.ReasonExpired]. The age is time that boards were seen to
// run, of one boot or of several; no wall clock is asked.
//
// # Faults
//
// A record whose CRC or cipher does not match is never handed on: it becomes a gap
// with [schema.ReasonCorrupt], as does each number that should be in a segment and
// is not. Nothing here panics or ends the process.
//
// With a disk that is gone, broken or read-only the spool works from memory, 1 MiB
// in all: records get numbers of epochs of their own, which [Spool.Cursors] lists
// after those on disk and [Spool.ReadEpoch] reads. [Stats].Memory says so, and
// [Config].OnMemory is told. The disk is tried again each minute. What memory still
// held at a Close with a disk is written down as a gap; a crash loses it untold, for
// there is nowhere to write.
//
// A disk that holds the spool of another board is left alone, too ([Config].Owner,
// [Spool.Claim]): sent from here its records would count as this board's. It is tried
// each minute as well, so moving the folder away is enough.
//
// After a start that ended badly another process looks at the newest files first
// ([Config].Probe), after two at all of them: a file that kills it goes to quarantine.
// After three such starts in a row of one boot the files are left alone for ten minutes
// and the spool works from memory.
//
// # Encryption
//
// With a [Config].Holder segments are encrypted (AES-256-GCM, a key for each
// segment); the names of files, the numbers and the cursors are not. Files under a
// key that is gone go to quarantine, told with [schema.ReasonKeyLost].
//
// # Concurrency
//
// All methods may be called from any goroutine. [Spool.Run] owns one goroutine a
// class; it does the lingering and writes the cursors. Without it the spool works
// too: each durable Append commits by itself, metrics wait for Flush or Close.
// Acknowledgements that come out of order are kept as intervals; the lowest 252 of
// a class survive a restart, the records of others are then given once more.
package storage
