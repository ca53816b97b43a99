// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/tpmtest"

	"github.com/google/go-tpm/tpm2"
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
	if err := c.Delete(); err != nil {
		t.Error(err)
	}
	wants(t, c.Delete(), tpm.ErrMissing)
	if v := must[uint64](t)(c.Define()); v <= first+1 {
		t.Errorf("%d after deletion, was %d", v, first+1)
	}
	if _, err = a.Counter(0x01c00002); err == nil {
		t.Error("the maker's range was given out")
	}
}

// What lies at the counter's index and is none is not taken for one.
func TestNoCounter(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	chip.Write(t, 0x01800012, make([]byte, 8))
	c := must[*tpm.Counter](t)(open(t, chip.Path()).Counter(0x01800012))
	for _, do := range []func() (uint64, error){c.Value, c.Increment, c.Define} {
		_, err := do()
		wants(t, err, tpm.ErrForeign)
	}
}

// NV_RATE: the TPM does not want to write so often, and says that it has not begun.
func TestCounterRate(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	var left atomic.Int64 // refusals
	p.Answer = func(cmd []byte) ([]byte, bool) {
		if binary.BigEndian.Uint32(cmd[6:]) == uint32(tpm2.TPMCCNVIncrement) && left.Load() > 0 {
			left.Add(-1)
			return tpmtest.Code(0x920), true
		}
		return nil, true
	}
	c := must[*tpm.Counter](t)(open(t, p.Path()).Counter(0x01800011))
	v := must[uint64](t)(c.Define())
	left.Store(4)
	if w := must[uint64](t)(c.Increment()); w != v+1 || left.Load() != 0 {
		t.Errorf("%d after %d, %d refusals left", w, v, left.Load())
	}
	left.Store(1 << 30)
	_, err := c.Increment()
	wants(t, err, tpm.ErrBusy)
	left.Store(0)
	if w := must[uint64](t)(c.Value()); w != v+1 {
		t.Errorf("%d after %d", w, v+1)
	}
}
