// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package telemetry keeps what boards measure as time series that can be asked in
// PromQL: an embedded Prometheus database behind Prometheus' own query API.
//
// The ledger stays the truth that an acknowledgement to a board stands for. The
// database is a projection of it: a feeder reads the ledger's rows behind a cursor of
// its own, never in the way of ingest, and may lag, fail or begin again. A database
// that was lost is made anew from what the ledger still has.
//
// Beside what boards measure, the fleet's own word on each board is sampled (up, state,
// records made, arrived and lost): series fulmar_board_*. Those exist from when the
// fleet saw them on; the ledger cannot bring them back.
//
// Everything is asked through a [scope.Scope]: no expression reads another tenant.
// ADR 0041 has the decisions.
package telemetry
