// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"errors"
	"testing"

	"fulmar/fleet/access"
	"fulmar/fleet/web"
)

// shared is a source whose look is as old as the last Stale.
type shared struct {
	web.Source
	seen, there []web.Board
	anew        int
}

func (s *shared) Overview(context.Context, string) (*web.Overview, error) {
	return &web.Overview{Boards: s.seen}, nil
}

func (s *shared) Stale(string) { s.anew, s.seen = s.anew+1, s.there }

// TestBoardLetInSinceTheLook: it is found, at one look more, and so is nothing else.
func TestBoardLetInSinceTheLook(t *testing.T) {
	t.Parallel()
	src := &shared{seen: []web.Board{{Name: "a"}}, there: []web.Board{{Name: "a"}, {Name: "b"}}}
	l := &Looks{cfg: Config{Source: src}}
	for _, c := range []struct {
		board string
		there bool
		anew  int
	}{{"a", true, 0}, {"b", true, 1}, {"b", true, 1}, {"c", false, 2}} {
		b, err := l.Board(t.Context(), access.Caller{Tenant: "default"}, c.board)
		if c.there != (err == nil) || !c.there && !errors.Is(err, web.ErrNotFound) || c.there && b.Name != c.board || src.anew != c.anew {
			t.Errorf("%s: %v, %v, looked anew %d times", c.board, b, err, src.anew)
		}
	}
}
