// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"errors"
	"fmt"
	"time"

	"fulmar/fleet/telemetry/points"
	"fulmar/fleet/telemetry/remote"
	"fulmar/fleet/telemetry/traces"
)

// Config is all that the telemetry of a fleet is told; a zero is the default.
type Config struct {
	// Retention is how long samples are kept. Default 90 days.
	Retention time.Duration `yaml:"retention"`
	// MiB bounds the folder; the oldest blocks go first. Default 20 GiB. What the newest
	// few hours take (head and log) is not in it.
	MiB int64 `yaml:"mib"`
	// BoardSeries and TenantSeries bound how many series are live at once. Default 1,024
	// and 200,000: at 2 KiB each (docs/benchmarks.md) that is 0.4 GB of memory for the latter.
	BoardSeries  int `yaml:"board_series"`
	TenantSeries int `yaml:"tenant_series"`
	// Every is how often the fleet's own word on each board is sampled. Default 15 s.
	Every time.Duration `yaml:"every"`
	// QueryTimeout ends an expression. Default 30 s.
	QueryTimeout time.Duration `yaml:"query_timeout"`
	// QuerySamples bounds the samples that one expression holds in memory (16 bytes
	// each). Default 5 million.
	QuerySamples int `yaml:"query_samples"`
	// Queries bounds the expressions at work at once; others wait. Default 8.
	Queries int `yaml:"queries"`
	// RemoteWrite are receivers of everything, beside the fleet's own database.
	RemoteWrite []remote.Config `yaml:"remote_write"`
	// Traces is where the way of a sampled event goes; an empty URL: nowhere.
	Traces traces.Config `yaml:"traces"`
}

// WithDefaults gives the config with what is zero set to its default.
func (c Config) WithDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&c.Retention, 90*24*time.Hour)
	def(&c.Every, 15*time.Second)
	def(&c.QueryTimeout, 30*time.Second)
	num(&c.BoardSeries, 1024)
	num(&c.TenantSeries, 200_000)
	num(&c.QuerySamples, 5_000_000)
	num(&c.Queries, 8)
	if c.MiB == 0 {
		c.MiB = 20 << 10
	}
	return c
}

// maxReceivers bounds the receivers: each reads the whole ledger for itself.
const maxReceivers = 8

// Validate checks what can be checked without opening anything; each error names the key.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs []error
	least := func(ok bool, key, wants string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: wants %s", key, wants))
		}
	}
	least(c.Retention >= 2*time.Hour, "retention", "at least 2h, one block")
	least(c.MiB >= 64, "mib", "at least 64")
	least(c.Every >= time.Second && c.Every <= time.Minute, "every", "1s to 1m: an expression looks back five minutes")
	least(c.QueryTimeout >= time.Second && c.QueryTimeout <= 10*time.Minute, "query_timeout", "1s to 10m")
	least(c.BoardSeries > 0 && c.TenantSeries > 0, "board_series, tenant_series", "a positive number")
	least(c.QuerySamples >= 1000 && c.Queries > 0, "query_samples, queries", "at least 1000 and 1")
	least(len(c.RemoteWrite) <= maxReceivers, "remote_write", fmt.Sprintf("at most %d receivers", maxReceivers))
	names := map[string]bool{}
	for i, r := range c.RemoteWrite {
		if err := r.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("remote_write[%d].%w", i, err))
		}
		least(!names[r.Name], fmt.Sprintf("remote_write[%d].name", i), "a name that no other receiver has: the cursor is kept by it")
		names[r.Name] = true
	}
	if err := c.Traces.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("traces.%w", err))
	}
	return errors.Join(errs...)
}

func (c Config) limits() points.Limits {
	return points.Limits{Board: c.BoardSeries, Tenant: c.TenantSeries}
}
