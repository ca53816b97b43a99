// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package overview gives the telemetry the fleet's word on each board from the same look
// at the fleet that the page has.
package overview

import (
	"context"
	"strings"

	"fulmar/fleet/telemetry"
	"fulmar/fleet/web"
)

// Source is the look at the fleet.
type Source interface {
	Overview(ctx context.Context, tenant string) (*web.Overview, error)
}

// Boards gives what [telemetry.Sources.Boards] wants. site tells where a board stands, ""
// unknown; nil: nothing is known of sites. States are the words of the query language:
// never-heard, not "never heard".
func Boards(src Source, site func(*web.Board) string) func(context.Context, string) ([]telemetry.BoardState, error) {
	return func(ctx context.Context, tenant string) ([]telemetry.BoardState, error) {
		o, err := src.Overview(ctx, tenant)
		if err != nil {
			return nil, err
		}
		out := make([]telemetry.BoardState, len(o.Boards))
		for i := range o.Boards {
			b := &o.Boards[i]
			s := telemetry.BoardState{Name: b.Name, Release: b.Release, State: strings.ReplaceAll(string(b.State), " ", "-"), Up: b.Online, Heard: b.LastSeen}
			if site != nil {
				s.Site = site(b)
			}
			for _, c := range b.Ledger {
				s.Classes = append(s.Classes, telemetry.ClassState{
					Class: c.Class, Made: c.Made, Arrived: c.Arrived, Lost: c.Lost, Waiting: c.Waiting, Dups: c.Duplicates, Reasons: c.Reasons,
				})
			}
			out[i] = s
		}
		return out, nil
	}
}
