// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package sim runs boards and a fleet in simulated time: the real scheduler, spool,
// link, MQTT client, broker, gateway, ingest and databases; only the network is a pipe
// and the clock the runtime's. An hour takes seconds.
//
// TestRandomFaults makes a world of each seed. A seed fixes what is made, which faults
// come and when, the jitter of every reconnect, and what happens to each message, by
// what it is and how often it came. It does not fix which of several goroutines that
// are ready at the same instant runs first, nor which ready case a select takes: the
// runtime draws those, and a program cannot seed it. In half of the worlds (stepwise)
// nothing else moves while a record is made, and such a world replays nearly the same:
// of ten runs of a seed with one board 5 to 7 were alike to the last message and the
// others differed in a few, as where one message carries what two did. With two boards
// and a foreign broker, runs of a seed begin alike and part later, in half a minute or
// only at the end. So a failing seed prints a command that runs it several times, and
// FULMAR_SIM_TRACE=file keeps what was sent, to compare two runs by.
//
// The wall clock of a board is turned through its [fulmar/schema.Clock]. Nothing turns
// the runtime's own: what waits, waits by Go's monotonic clock, which no step of the
// wall moves, and simulated time has but one.
package sim
