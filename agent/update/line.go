// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"

	"fulmar/link"
	"fulmar/schema"
)

// Line is the link as objects come by it: the session of the moment, see fetch.Line.
type Line struct {
	Session func() *link.Session // nil: there is none yet
}

// Send publishes.
func (l Line) Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	if s := l.Session(); s != nil {
		return s.Send(ctx, ch, tail, payload)
	}
	return link.ErrDown
}

// Hear has an object's own topic heard.
func (l Line) Hear(ctx context.Context, tree string) (<-chan struct{}, error) {
	if s := l.Session(); s != nil {
		return s.Hear(ctx, tree)
	}
	return nil, link.ErrDown
}

// Leave ends that.
func (l Line) Leave(ctx context.Context, tree string) error {
	if s := l.Session(); s != nil {
		return s.Leave(ctx, tree)
	}
	return nil
}
