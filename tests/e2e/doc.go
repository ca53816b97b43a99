// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e kills the real programs, on loopback, and asks the fleet afterwards
// whether every number is there as a record or inside a gap, and each effect once.
package e2e
