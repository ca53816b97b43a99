// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package overview

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"fulmar/fleet/telemetry"
	"fulmar/fleet/web"
)

type source func(string) (*web.Overview, error)

func (s source) Overview(_ context.Context, tenant string) (*web.Overview, error) { return s(tenant) }

func TestBoards(t *testing.T) {
	t.Parallel()
	at, broken := time.Now(), errors.New("broken")
	get := Boards(source(func(tenant string) (*web.Overview, error) {
		if tenant != "a" {
			return nil, broken
		}
		return &web.Overview{Boards: []web.Board{{
			Name: "dock-1", Release: "1.7", State: web.StateNeverHeard, Online: true, LastSeen: at,
			Ledger: []web.Ledger{{Class: "event", Made: 9, Arrived: 5, Lost: 3, Waiting: 1, Duplicates: 2, Reasons: map[string]uint64{"crash": 3}}},
		}}}, nil
	}), func(b *web.Board) string { return "site of " + b.Name })
	got, err := get(t.Context(), "a")
	want := []telemetry.BoardState{{
		Name: "dock-1", Site: "site of dock-1", Release: "1.7", State: "never-heard", Up: true, Heard: at,
		Classes: []telemetry.ClassState{{Class: "event", Made: 9, Arrived: 5, Lost: 3, Waiting: 1, Dups: 2, Reasons: map[string]uint64{"crash": 3}}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := get(t.Context(), "b"); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
