// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package simulated is an output that is not there: a value that follows what is set as a
// valve does, with the faults that valves have. It is for trying things out and for tests.
package simulated

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// The faults.
const (
	FaultNone   = ""
	FaultStuck  = "stuck"  // takes what is set and stays where it is
	FaultNoisy  = "noisy"  // what is read is off by up to Noise
	FaultRefuse = "refuse" // answers each set with an error
	FaultHang   = "hang"   // does not answer until the context ends
)

// maxLag bounds Lag: an hour is slower than any valve.
const maxLag = time.Hour

// Config says how it moves.
type Config struct {
	// Lag is the time in which it covers 63 % of its way (a first-order lag); 0 is at once.
	Lag   time.Duration `yaml:"lag"`
	Start float64       `yaml:"start"` // where it stands at first, in its unit
	Fault string        `yaml:"fault"`
	Noise float64       `yaml:"noise"` // of fault noisy, in its unit
}

// Validate checks the bounds.
func (c *Config) Validate() error {
	if c.Lag < 0 || c.Lag > maxLag {
		return fmt.Errorf("lag: %v, wants 0s to %v", c.Lag, maxLag)
	}
	if math.IsNaN(c.Start) || math.IsInf(c.Start, 0) || !(c.Noise >= 0) || math.IsInf(c.Noise, 0) {
		return errors.New("start, noise: want finite numbers, noise not below 0")
	}
	return checkFault(c.Fault)
}

func checkFault(f string) error {
	switch f {
	case FaultNone, FaultStuck, FaultNoisy, FaultRefuse, FaultHang:
		return nil
	}
	return fmt.Errorf("fault: %q, wants stuck, noisy, refuse, hang or nothing", f)
}

// Output is one simulated output. Safe for concurrent use.
type Output struct {
	name string
	cfg  Config

	mu     sync.Mutex
	fault  string
	from   float64 // where it stood at since
	target float64
	since  time.Time
	noise  *rand.Rand
}

// New makes one that stands at its start.
func New(name string, cfg Config) *Output {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return &Output{name: name, cfg: cfg, fault: cfg.Fault, from: cfg.Start, target: cfg.Start, since: time.Now(), noise: rand.New(rand.NewPCG(h.Sum64(), 0))}
}

// Name is the output's.
func (o *Output) Name() string { return o.name }

// Break gives it a fault, or takes it away.
func (o *Output) Break(fault string) error {
	if err := checkFault(fault); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.from, o.since = o.now(), time.Now()
	o.fault = fault
	return nil
}

// Set gives it another target.
func (o *Output) Set(ctx context.Context, value float64) error {
	o.mu.Lock()
	fault := o.fault
	if fault != FaultHang && fault != FaultRefuse {
		o.from, o.since, o.target = o.now(), time.Now(), value
	}
	o.mu.Unlock()
	switch fault {
	case FaultHang:
		<-ctx.Done()
		return fmt.Errorf("simulated output hangs: %w", ctx.Err())
	case FaultRefuse:
		return errors.New("simulated output refuses")
	}
	return nil
}

// Get tells where it stands.
func (o *Output) Get(ctx context.Context) (float64, bool, error) {
	o.mu.Lock()
	v, fault := o.now(), o.fault
	if fault == FaultNoisy {
		v += o.cfg.Noise * (2*o.noise.Float64() - 1)
	}
	o.mu.Unlock()
	if fault == FaultHang {
		<-ctx.Done()
		return 0, false, fmt.Errorf("simulated output hangs: %w", ctx.Err())
	}
	return v, true, nil
}

// now is where it stands: target + (from - target) e^(-t/lag).
func (o *Output) now() float64 {
	if o.fault == FaultStuck {
		return o.from
	}
	if o.cfg.Lag <= 0 {
		return o.target
	}
	return o.target + (o.from-o.target)*math.Exp(-time.Since(o.since).Seconds()/o.cfg.Lag.Seconds())
}
