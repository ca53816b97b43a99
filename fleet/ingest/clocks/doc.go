// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package clocks places what boards without a trusted clock did on the fleet's
// clock. It is pure; ingest stores its state, one [Board] for each board.
//
// Within one boot a board's time is its CLOCK_BOOTTIME, which nobody can set. So
// one number places a whole boot: its offset, real time less boot time. What is
// known of it, best first:
//
//   - [Exact]: the fleet's own clock when a message of that boot came, less the
//     boot time at which it was sent. Too late by the time the message took; of
//     several the smallest counts.
//   - [Estimated]: an anchor of that boot, written while its kernel said that the
//     wall clock was kept by NTP.
//   - [Unknown]: the wall clock as told, if it is not absurd; or nothing but order.
//
// A boot that is not exact is kept in order with the others: it begins after the
// last that is known of the boot before it and ends before the next one that is
// exact begins, and nothing lies in the future. Which boot came before which is
// told by the sequence numbers of its records: an epoch outlives a boot.
package clocks
