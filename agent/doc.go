// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package agent wires one board: sensors, the inference worker, the spool and
// the link to the fleet, and tells how it is.
//
// It decides nothing itself. Data runs in straight lines:
//
//	sensor -> schedule -> record -> spool -> link -> fleet
//	worker -> event, picture -> record -> spool -> link -> fleet
//
// An [Agent] is made with [New] and lives inside [Agent.Run], which owns every
// goroutine and ends within five seconds of its context. Nothing here blocks on
// a sensor, a disk or the network: what cannot be taken in time is counted and
// said.
package agent
