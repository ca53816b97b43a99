// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"path/filepath"

	"fulmar/agent/decide"
)

// Plan is what the board decides on its own.
func (c *Config) Plan() decide.Plan {
	return decide.Plan{Rules: c.Rules, Shed: c.Shed, Autonomy: c.Autonomy, Sample: c.Sample}
}

// RulesPath and AutonomyPath are what rules did and how long the board is alone, over
// restarts; see [Config.SpoolDir].
func (c *Config) RulesPath() string { return filepath.Join(c.Data, "rules.state") }

// AutonomyPath is where the time alone is kept; see [Config.RulesPath].
func (c *Config) AutonomyPath() string { return filepath.Join(c.Data, "autonomy.state") }
