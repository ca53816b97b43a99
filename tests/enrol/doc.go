// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package enrol tests `fulmar enrol` with the real programs: a fleet, a fulmard that a
// stand-in for systemctl starts anew, a software TPM for one of them.
package enrol
