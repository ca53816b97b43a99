// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package views puts the pages of fleet, board and detections together.
package views

import (
	"log/slog"
	"slices"

	"fulmar/fleet/web"
	"fulmar/fleet/web/boardview"
	"fulmar/fleet/web/detectview"
	"fulmar/fleet/web/fleetview"
)

// Config is what the pages are made from. Only Source is needed; what else is nil is not
// shown.
type Config struct {
	Source web.Source
	// JoinPage, Keeper and Saved: see [fleetview.Config].
	JoinPage string
	Keeper   web.Keeper
	Saved    fleetview.Saved
	// Metas: see [boardview.Config].
	Metas boardview.Metas
	// Control: boards have a page of settings and commands.
	Control bool
	Log     *slog.Logger
}

// Pages gives all of them, in the order of the bar.
func Pages(c Config) []web.Page {
	return slices.Concat(
		fleetview.Pages(fleetview.Config{Source: c.Source, JoinPage: c.JoinPage, Keeper: c.Keeper, Saved: c.Saved, Log: c.Log}),
		boardview.Pages(boardview.Config{Source: c.Source, Keeper: c.Keeper, Metas: c.Metas, Control: c.Control}),
		detectview.Pages(detectview.Config{Source: c.Source}),
	)
}
