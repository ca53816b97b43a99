// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package fleet holds a real server process to what it promises of many boards: each
// record that it acknowledged is there once, also after kills under load, and thousands of
// boards come back after a restart, at the pace that the gateway lets them in. The boards
// are those of package sim.
//
// FULMAR_BOARDS sets their number (2,000); `make soak` takes as many as the limit of open
// files lets.
package fleet
