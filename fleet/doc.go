// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package fleet wires the fleet's server: registry, authority, gateway, ingest,
// store, API and page in one process over one data folder.
//
//	board -> TLS -> gateway -> ingest -> ledger.db, pictures/
//	page, programs -> HTTPS -> web, api -> store -> ledger.db (read only)
//
// A [Server] is made with [New], which opens files and ports, and lives inside
// [Server.Run], which owns every goroutine and ends within five seconds of its
// context: first the doors close, then what was accepted is committed.
package fleet
