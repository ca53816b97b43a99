// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import "reflect"

// FixedAtStart names the sections that next changes and a running agent does not apply.
func (c *Config) FixedAtStart(next *Config) []string {
	var out []string
	for _, s := range []struct {
		key string
		a   any
		b   any
	}{
		{"board", c.Board, next.Board},
		{"data", c.Data, next.Data},
		{"fleet", c.Fleet, next.Fleet},
		{"broker", c.Broker, next.Broker},
		{"key", c.Key, next.Key},
		{"tpm", c.TPM, next.TPM},
		{"outputs", c.Outputs, next.Outputs},
		{"spool", c.Spool, next.Spool},
		{"link", c.Link, next.Link},
		{"infer", c.Infer, next.Infer},
		{"status", c.Status, next.Status},
		{"updates.mode", c.Updates.Mode, next.Updates.Mode},
		{"updates.give", c.Updates.Give, next.Updates.Give},
		{"updates.peers", c.Updates.Peers, next.Updates.Peers},
		{"updates.programs", c.Updates.Programs, next.Updates.Programs},
		{"updates.slots", c.Updates.Slots, next.Updates.Slots},
		{"log.format", c.Log.Format, next.Log.Format},
	} {
		if !reflect.DeepEqual(s.a, s.b) {
			out = append(out, s.key)
		}
	}
	return out
}
