// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"context"
	"errors"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/api/look"
	"fulmar/fleet/query"
	"fulmar/fleet/query/boards"
	"fulmar/fleet/web"
	"fulmar/schema/rest"
)

// Parse understands a query for the API.
func Parse(q string) (look.Matcher, string, error) {
	parsed, err := query.Parse(q)
	if err != nil {
		bad := new(query.Error)
		if errors.As(err, &bad) {
			return nil, "", &look.QueryError{Column: bad.Column, What: bad.What, Do: bad.Do}
		}
		return nil, "", err
	}
	return func(b *web.Board, now time.Time) bool { return parsed.Match(boards.Of(b), now) }, parsed.String(), nil
}

// Look is the shared look at the fleet.
type Look func(ctx context.Context, tenant string) (*web.Overview, error)

// Count tells how many boards a query matches, for a form in which it is typed.
func (l Look) Count(ctx context.Context, by access.Caller, q string) (rest.QueryCheck, error) {
	parsed, err := query.Parse(q)
	if bad := new(query.Error); errors.As(err, &bad) {
		return rest.QueryCheck{Column: bad.Column, What: bad.What, Do: bad.Do}, nil
	}
	if err != nil {
		return rest.QueryCheck{}, err
	}
	limit, err := query.Parse(by.Boards)
	if err != nil {
		return rest.QueryCheck{}, err
	}
	ov, err := l(ctx, by.Tenant)
	if err != nil {
		return rest.QueryCheck{}, err
	}
	return rest.QueryCheck{Query: parsed.String(), Count: len(boards.Select(ov, query.And(parsed, limit)))}, nil
}
