// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package store keeps what boards have said: it opens the fleet's SQLite files
// and answers the questions of the page and the API.
//
// There are two files. The registry (who belongs to the fleet) is small and
// precious; the ledger (what boards delivered) is large and pruned. Each is in
// write-ahead mode with synchronous=FULL: a commit that returned survives a power
// cut. A [DB] has one write connection and several read connections, so that a
// slow page never holds up a board.
//
// [Store] implements the page's read model; all numbers of one Overview come from
// one read transaction of the ledger.
package store
