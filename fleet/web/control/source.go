// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"

	"fulmar/fleet/access"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

// Commands is what the pages need of the fleet's commands. A caller who is limited to some
// boards sees those.
type Commands interface {
	// List gives the newest, at most limit; board "" is all boards.
	List(ctx context.Context, by access.Caller, board string, limit int) ([]rest.Command, error)
	Get(ctx context.Context, by access.Caller, id string) (*rest.Command, error)
	Kinds(ctx context.Context, by access.Caller) ([]rest.CommandKind, error)
	Give(ctx context.Context, by access.Caller, s rest.CommandSpec) (*rest.Command, error)
	Act(ctx context.Context, by access.Caller, id string, a rest.CommandAction) (*rest.Command, error)
}

// Twins is what the pages need of the boards' twins.
type Twins interface {
	Twin(ctx context.Context, by access.Caller, board string) (*rest.Twin, error)
	// Patch changes a twin that is still at the version that the person saw.
	Patch(ctx context.Context, by access.Caller, board string, version uint64, p rest.TwinPatch) error
	// History gives the newest changes, at most limit.
	History(ctx context.Context, by access.Caller, board string, limit int) ([]rest.TwinEvent, error)
	Conflicts(ctx context.Context, by access.Caller) ([]rest.TwinConflict, error)
	// Decide takes the side "fleet" or "board" of a conflict.
	Decide(ctx context.Context, by access.Caller, board, key, side string) error
}

// Config shapes the pages.
type Config struct {
	Commands Commands
	Twins    Twins
	// Count tells how many boards a query matches and, where it is not understood, why;
	// nil: the form does not count while a person types.
	Count func(ctx context.Context, by access.Caller, query string) (rest.QueryCheck, error)
	// Problem puts an error of the parts into words; false for one that is a fault of the
	// server and is logged. nil knows only those of the page itself.
	Problem form.Explain
}
