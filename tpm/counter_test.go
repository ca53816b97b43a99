// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/tpmtest"
)

// The counter keeps its value through a power cut and never goes back.
func TestCounter(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	a := open(t, chip.Path())
	c := must[*tpm.Counter](t)(a.Counter(0x01800010))
	_, err := c.Value()
	wants(t, err, tpm.ErrMissing)
	first := must[uint64](t)(c.Define())
	if v := must[uint64](t)(c.Increment()); v != first+1 {
		t.Errorf("%d after %d", v, first)
	}
	if v := must[uint64](t)(c.Define()); v != first+1 {
		t.Errorf("a second definition gave %d", v)
	}
	chip.Kill()
	if _, err = c.Value(); err == nil {
		t.Error("read from a dead TPM")
	}
	chip.Run(t)
	if v := must[uint64](t)(c.Value()); v != first+1 {
		t.Errorf("%d after a power cut, was %d", v, first+1)
	}
	if _, err = a.Counter(0x01c00002); err == nil {
		t.Error("the maker's range was given out")
	}
}
