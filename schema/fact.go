// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"slices"
	"strings"
)

// CanUpdate is the word in a board's fact [FactCan] that says that it takes assignments.
// A board that does not say so is told nothing.
const (
	FactCan   = "can" // a fact of Hello: words with spaces between them
	CanUpdate = "updates"
	// FactUpdates names the kinds of components that it can update: agent worker model config rootfs.
	FactUpdates = "updates"
)

// Can tells whether a board's facts say that it can do something.
func Can(facts map[string]string, word string) bool {
	return slices.Contains(strings.Fields(facts[FactCan]), word)
}
