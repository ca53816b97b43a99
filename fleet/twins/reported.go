// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"fmt"

	"fulmar/fleet/registry/twinrows"
	"fulmar/twin"
)

// commandsKey is the reported key under which a board lists the commands that it has.
const commandsKey = "commands"

// Commands gives the names of the commands that each board of a tenant says it has. It
// reads all twins: 10,000 take about a second, so who asks often keeps the answer.
func (x *Twins) Commands(ctx context.Context, tenant string) (map[string][]string, error) {
	out := map[string][]string{}
	err := x.cfg.Rows.Each(ctx, tenant, func(board, life string, body []byte) error {
		f, err := x.load(twinrows.Key{Tenant: tenant, Board: board}, life, body)
		if err != nil {
			return err
		}
		if names := list(f.Reported()[commandsKey]); names != nil {
			out[board] = names
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read which commands boards have: %w", err)
	}
	return out, nil
}

// list reads a list of texts; nil for anything else.
func list(v twin.Value) (out []string) {
	a, err := v.Any()
	if err != nil {
		return nil
	}
	all, _ := a.([]any)
	for _, x := range all {
		if s, ok := x.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
