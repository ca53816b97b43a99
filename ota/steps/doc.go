// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package steps is what is done in each state of an update, between two words of the record.
// Each step is told all that it needs, may be cut by a power loss anywhere, is done again
// by the next start, and ends with an event of package table. It keeps nothing itself.
package steps
