// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import "path/filepath"

// RulesPath and AutonomyPath are what rules did and how long the board is alone, over
// restarts; see [Config.SpoolDir].
func (c *Config) RulesPath() string { return filepath.Join(c.Data, "rules.state") }

// AutonomyPath is where the time alone is kept; see [Config.RulesPath].
func (c *Config) AutonomyPath() string { return filepath.Join(c.Data, "autonomy.state") }
