// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

// Limits of what is accepted from outside. A decoder refuses what is larger
// before it allocates for it.
const (
	// MaxChunk is the largest piece of a blob or object in one message, in bytes.
	MaxChunk = 64 << 10
	// MaxPayload is the largest MQTT payload: one chunk and its header, in bytes.
	MaxPayload = MaxChunk + 1<<10
	// MaxRecord is the largest payload of one spooled record, in bytes. bbolt
	// rewrites overflow pages on each commit, so records stay near 1 KiB; events
	// with many boxes may be larger, up to this bound.
	MaxRecord = 16 << 10
	// MaxRecords is the largest number of records in one message.
	MaxRecords = 512
	// MaxName is the longest tenant, board, sensor, camera or model name, in bytes.
	MaxName = 64
	// MaxSeries is the largest number of series in one sample batch.
	MaxSeries = 512
	// MaxDetections is the largest number of boxes in one event, and of truths.
	// 300 boxes are 11 KiB. All limits of an event (or of a batch of samples: 512
	// names of 64 bytes) at once are over MaxRecord, and EncodeRecord says so: who
	// makes records cuts them to fit.
	MaxDetections = 300
	// MaxFacts is the largest number of facts in a Hello, MaxFact the longest one
	// in bytes.
	MaxFacts = 32
	MaxFact  = 256
	// MaxCursors is the largest number of cursors in a Hello: each class in a few
	// epochs.
	MaxCursors = 4 * NumClasses
	// MaxText is the longest free text (a reason, a log line), in bytes.
	MaxText = 1024
)
