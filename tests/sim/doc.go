// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package sim runs a board's parts and the fleet's ingest in simulated time: the
// real scheduler, spool, link, MQTT client, broker, ingest and databases; only
// the network is a pipe and the clock the runtime's. An hour takes seconds and
// runs the same each time.
package sim
