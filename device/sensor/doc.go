// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package sensor reads what any Linux board tells about itself: processor, memory,
// disks, network, temperatures, fans and supplies, and fulmard's own use of them.
//
// Hardware that is not there is no error: the sensor gives no readings, its Found
// is 0, and folders are looked at again once a minute. A number that is there and
// cannot be had now is sent without a value and with the reason as its quality.
// Rates and percentages are over the time since the last read, so the first read
// gives none. Counters that jump back begin anew, with one stale reading.
//
// A sensor belongs to one goroutine at a time; only Found may be called from
// others.
package sensor
