// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"net"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"fulmar/cmd/fulmar/here"
)

// system is what no folder of files can stand for. Tests have their own.
type system struct {
	now    func() time.Time
	synced func() bool
	statfs func(path string, st *unix.Statfs_t) error
	stat   func(path string, st *unix.Stat_t) error
	run    func(ctx context.Context, program string, args ...string) (string, error)
	find   func(program string) (string, error)
	health func(ctx context.Context, c *here.Config) (*here.Health, map[string]float64, error)
	dial   func(ctx context.Context, address string) error
	lookup func(ctx context.Context, host string) ([]string, error)
}

func realSystem() system {
	return system{
		now: time.Now, synced: synced, statfs: unix.Statfs, stat: unix.Stat, run: here.Run, find: exec.LookPath,
		health: func(ctx context.Context, c *here.Config) (*here.Health, map[string]float64, error) {
			s, err := here.Ask(c)
			if err != nil {
				return nil, nil, err
			}
			h, err := s.Health(ctx)
			if err != nil {
				return nil, nil, err
			}
			m, err := s.Metrics(ctx)
			return h, m, err
		},
		dial: func(ctx context.Context, address string) error {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			return c.Close()
		},
		lookup: net.DefaultResolver.LookupHost,
	}
}

// synced asks the kernel whether something (NTP, GPS) keeps its clock.
func synced() bool {
	var x unix.Timex // modes 0: only read
	state, err := unix.Adjtimex(&x)
	return err == nil && state != unix.TIME_ERROR && x.Status&unix.STA_UNSYNC == 0
}
