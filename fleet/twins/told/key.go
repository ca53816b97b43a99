// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package told

import (
	"slices"
	"strings"

	"fulmar/schema/rest"
	"fulmar/twin"
)

// States of a key.
const (
	keyApplied  = "applied"
	keyPending  = "pending"
	keyRefused  = "refused"
	keyUndone   = "undone"
	keyConflict = "conflict"
)

// undoneWord begins the board's reason for a key that it took back, because the version
// made it unhealthy.
const undoneWord = "undone"

// Key tells of a key.
func (s *State) Key(k *twin.Known) rest.TwinKey {
	out := rest.TwinKey{Key: k.Key, Value: JSON(k.Holds), From: "fleet", State: keyApplied, Refused: s.Refused[k.Key], Board: edits(k.Board)}
	if k.From == twin.FromOverride {
		out.From = "board"
	}
	if k.Fleet != nil {
		e := editOf(*k.Fleet)
		out.Fleet = &e
	}
	if len(k.Board) > 0 {
		out.Policy = k.Policy.String()
	}
	switch {
	case slices.ContainsFunc(s.Held, func(c twin.Conflict) bool { return c.Key == k.Key }):
		out.State = keyConflict
	case k.Fleet != nil && k.Version > s.Applied:
		out.State, out.Refused = keyPending, "" // the reason is of an edit before it
	case strings.HasPrefix(out.Refused, undoneWord):
		out.State = keyUndone
	case out.Refused != "":
		out.State = keyRefused
	}
	return out
}
