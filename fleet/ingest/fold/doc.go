// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package fold works on what is stored, a bounded step at a time, between the
// commits of new records: it adds telemetry to rollups, so that a month of a
// series is read in milliseconds, and places rows of boots anew whose time became
// better known.
//
// # Rollups
//
// For each series there is a row for each minute and each hour in which it had a
// reading. Rows are added in the order of telemetry's ids up to a mark (table
// progress); a reader takes the rollups and, from telemetry, what is after the
// mark. So nothing is missing and nothing counted twice.
//
// A board that ran out of space sends summaries in place of readings, and a span
// may reach the fleet both ways: readings that were under way when the board
// thinned them. In each minute the one that stands for more readings counts for
// the mean; minimum and maximum are those of both.
//
// # Open rows
//
// Rows of a boot that was never connected are open: they stay out of the rollups
// and are placed anew as better evidence comes, until nothing more of that boot
// has come for ten minutes. Then they are closed for good.
package fold
