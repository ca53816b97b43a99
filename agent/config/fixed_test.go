// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"testing"
)

func TestFixedAtStart(t *testing.T) {
	t.Parallel()
	a, b := Default(), Default()
	b.Fleet.Address, b.Sensors.Synthetic = "other:1", 5
	if got := a.FixedAtStart(&b); !slices.Equal(got, []string{"fleet"}) {
		t.Errorf("got %v, wants fleet alone", got)
	}
}
