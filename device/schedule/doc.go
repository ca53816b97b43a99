// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package schedule reads sensors on time and makes sample batches of them.
//
// Sensors stand in groups ([Group]); a group has a period. At each tick of a group
// all its sensors are read at once, each in a goroutine of its own, and what they
// give within the group's deadline becomes one [schema.Samples] with the time of
// the tick, handed to the [Sink].
//
// # What a stuck sensor does
//
// A read that has not returned at the deadline is left alone: its series go out as
// [schema.QualityStale], with that tick and all following ones, until it returns.
// It is never started a second time meanwhile, and no other sensor waits for it
// again. Each stuck read holds one thread of the process; at [MaxStuck] no further
// read is started.
//
// # What happens on overload, suspend and stop
//
// Ticks are at first + n*period and are never made up for: those that passed while
// the sink or the machine was busy are counted ([Stats]) and skipped. On stop the
// running tick is dropped; Run returns when all sensors have, or names the stuck
// ones after a bounded wait.
//
// # Concurrency
//
// A [Scheduler] may be used from many goroutines; Run once. The sink is called by
// one goroutine per group.
package schedule
