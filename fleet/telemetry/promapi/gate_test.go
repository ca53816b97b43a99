// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// One tenant never takes all places, and nobody waits for ever.
func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4)
		enter := func(tenant string) (func(), error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return g.enter(ctx, tenant)
		}
		var leave []func()
		for range 2 {
			out, err := enter("a")
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, out)
		}
		if _, err := enter("a"); !errors.Is(err, errBusy) {
			t.Fatalf("a third of one tenant: %v", err)
		}
		out, err := enter("b")
		if err != nil {
			t.Fatal("the other tenant is locked out")
		}
		out()
		for _, out := range leave {
			out()
		}
		if out, err = enter("a"); err != nil {
			t.Fatal("a place that was left is not free")
		}
		out()
		if len(g.tenants) != 0 {
			t.Errorf("%d tenants are remembered", len(g.tenants))
		}
	})
}

func TestAnswerIsBounded(t *testing.T) {
	t.Parallel()
	if err := json.NewEncoder(&bounded{left: 100}).Encode(strings.Repeat("x", 101)); err == nil {
		t.Error("over its bound")
	}
	if err := json.NewEncoder(&bounded{left: 100}).Encode(strings.Repeat("x", 90)); err != nil {
		t.Error(err)
	}
}
