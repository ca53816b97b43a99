// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/device/output/simulated"
)

// asked counts how often an output is asked where it stands.
type asked struct {
	*simulated.Output
	n *atomic.Int64
}

func (a asked) Get(ctx context.Context) (float64, bool, error) {
	a.n.Add(1)
	return a.Output.Get(ctx)
}

// TestHangsQuietly: a device that answers nothing until its time is over is looked at as
// rarely as any other; asked without a pause it would take no set, and a shutdown that
// drives it without a pause could not be released.
func TestHangsQuietly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		hangs := sim("valve", safeAt(0), func(c *Config) { c.Simulated = &simulated.Config{Fault: simulated.FaultHang} })
		l := newLab(t, dir, []Config{hangs}, func(_ *lab, d *Deps) {
			d.Make = func(c *Config) (Output, error) { return asked{simulated.New(c.Name, *c.Simulated), &n}, nil }
		})
		time.Sleep(10 * time.Minute)
		if got := n.Load(); got > 22 {
			t.Errorf("asked %d times in ten minutes, wants each 30 s", got)
		}
		wantCode(t, l.bank.Shutdown(t.Context(), "local/anna"), CodeFailed)
		released := 0
		for range 20 {
			time.Sleep(1700 * time.Millisecond)
			if l.bank.Release(t.Context(), "local/anna") == nil {
				released++
				_ = l.bank.Shutdown(t.Context(), "local/anna")
			}
		}
		if released < 5 {
			t.Errorf("released in %d of 20 tries", released)
		}
	})
}
