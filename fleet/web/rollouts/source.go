// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"context"

	"fulmar/fleet/access"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

// Rollouts is what the pages need of the rollouts.
type Rollouts interface {
	List(ctx context.Context, tenant string) ([]rest.Rollout, error)
	Get(ctx context.Context, tenant, id string) (*rest.Rollout, error)
	Boards(ctx context.Context, tenant, id string) ([]rest.RolloutBoard, error)
	Forecast(ctx context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Forecast, error)
	Create(ctx context.Context, by access.Caller, s rest.RolloutSpec) (*rest.Rollout, error)
	// Act changes a rollout that is still at the version that the person saw.
	Act(ctx context.Context, by access.Caller, id string, version int64, a rest.RolloutAction) (*rest.Rollout, error)
}

// Config shapes the pages.
type Config struct {
	Rollouts Rollouts
	// Count tells how many boards a query matches and, where it is not understood, why;
	// nil: the form does not count while a person types.
	Count func(ctx context.Context, by access.Caller, query string) (rest.QueryCheck, error)
	// Releases lists what the fleet can roll out, newest first; nil: none are offered.
	Releases func(ctx context.Context, by access.Caller) ([]rest.Release, error)
	// Problem puts an error of Rollouts into words; false for one that is a fault of the
	// server and is logged. nil knows only those of the page itself.
	Problem form.Explain
}
