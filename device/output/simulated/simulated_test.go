// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package simulated

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestLagAndFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := New("x", Config{Lag: 10 * time.Second, Start: 20, Noise: 2})
		at := func(want, tol float64) {
			t.Helper()
			if v, known, err := o.Get(t.Context()); !known || err != nil || math.Abs(v-want) > tol {
				t.Errorf("%v, %v, %v; wants %v", v, known, err, want)
			}
		}
		fault := func(f string) {
			t.Helper()
			if err := o.Break(f); err != nil {
				t.Fatal(err)
			}
		}
		at(20, 0)
		if err := o.Set(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
		at(20, 0)
		time.Sleep(10 * time.Second)
		at(100-80/math.E, 1e-9)
		fault(FaultStuck)
		time.Sleep(time.Hour)
		at(100-80/math.E, 1e-9)
		if err := o.Set(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		at(100-80/math.E, 1e-9)
		fault(FaultNone)
		time.Sleep(time.Hour)
		at(0, 1e-9)
		fault(FaultNoisy)
		at(0, 2)
		a, _, _ := o.Get(t.Context())
		b, _, _ := o.Get(t.Context())
		if a == b || a == 0 {
			t.Error("no noise", a, b)
		}
		fault(FaultRefuse)
		if err := o.Set(t.Context(), 7); err == nil {
			t.Error("taken")
		}
		at(0, 1e-9)
		fault(FaultHang)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := o.Set(ctx, 7); err == nil || time.Since(begun) != time.Second {
			t.Error(err, time.Since(begun))
		}
		if err := o.Break("rust"); err == nil {
			t.Error("a fault that is none")
		}
	})
}
