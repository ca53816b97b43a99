// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package autonomy holds boards to what they promise while nobody can be asked: the
// network is away and a valve must close.
//
// TestCut does it with the real programs, a key in a TPM and a device on a field bus that
// counts what is written to it; FULMAR_CUT makes its cut longer (make soak: 17 minutes).
// TestSeventeenMinutes does it with 86 boards in simulated time. Both print a report of
// what was done by whom, when, with which effect, and what the fleet has of it; its last
// line is how far the two are apart, which has to be nothing.
//
// The other tests are of what lies and what comes back from the past: an old backup, an
// old disk, a copy of a board, a flood, and a board that speaks for another.
package autonomy
