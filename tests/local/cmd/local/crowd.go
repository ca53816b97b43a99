// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"fulmar/schema/rest"
	"fulmar/tests/fleet/sim"
	"fulmar/tests/local"
)

// crowd is the simulated boards beside the real one. A nil fleet is none.
type crowd struct {
	fleet  *sim.Fleet
	cancel context.CancelFunc
	done   chan struct{} // closed when they have ended; nil where there are none
	err    error         // valid after done
}

// startCrowd enrols n boards, says where they are, and lets them live.
func startCrowd(ctx context.Context, site *local.Site, n int) (*crowd, error) {
	if n == 0 {
		return &crowd{cancel: func() {}}, nil
	}
	token, err := site.JoinTokens(n)
	if err != nil {
		return nil, err
	}
	f, err := sim.New(sim.Config{Token: token, Fleet: site.HTTPS, Dir: filepath.Join(site.Dir, "simulated"), Boards: n, Seed: 1, Sick: true, Spread: true})
	if err != nil {
		return nil, err
	}
	fmt.Printf("  %d simulated boards enrol ...", n)
	if err := f.Enrol(ctx); err != nil {
		return nil, err
	}
	if err := place(ctx, site, f); err != nil {
		return nil, err
	}
	fmt.Printf(" and live: some are hot, lose a camera or their uplink, so that there is something to find\n\n")
	ctx, cancel := context.WithCancel(ctx)
	c := &crowd{fleet: f, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = f.Run(ctx)
	}()
	return c, nil
}

// place writes the sites of the boards, as a person would.
func place(ctx context.Context, site *local.Site, f *sim.Fleet) error {
	api, err := site.Admin()
	if err != nil {
		return err
	}
	for _, b := range f.Boards() {
		m := rest.Meta{Site: b.Site, Location: &rest.Location{Lat: b.Lat, Lon: b.Lon}, PowerBudget: 25}
		if err := api.SetMeta(ctx, b.Name, m); err != nil {
			return fmt.Errorf("say where %s is: %w", b.Name, err)
		}
	}
	return nil
}

// stop ends the boards, which say goodbye.
func (c *crowd) stop() error {
	c.cancel()
	if c.done == nil {
		return nil
	}
	<-c.done
	return c.err
}

// check holds the boards to having been heard.
func (c *crowd) check() error {
	if c.fleet == nil {
		return nil
	}
	s := c.fleet.Stats()
	fmt.Printf("  simulated boards: %d connected, %d records acknowledged, %d on their way\n", s.Connected, s.Records, s.Waiting)
	if s.Connected == 0 || s.Records == 0 {
		return errors.New("the simulated boards were not heard")
	}
	return nil
}
