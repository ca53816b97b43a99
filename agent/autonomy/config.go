// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"fulmar/schema"
)

// Config is what a board may do alone.
type Config struct {
	// Grace is how long the fleet cannot be asked before the board counts as alone.
	Grace time.Duration `yaml:"grace"`
	// Back is how long it can be asked again before the board no longer does.
	Back time.Duration `yaml:"back"`
	// Allow is what may be done alone; empty allows all, without end.
	Allow []Allowance `yaml:"allow"`
}

// Allowance is some commands for some actors, for a time.
type Allowance struct {
	Name string `yaml:"name"`
	// Commands are names of commands; "*" is all.
	Commands []string `yaml:"commands"`
	// Who may give them: rules, people; empty is both.
	Who []string `yaml:"who"`
	// For is the lease: how long, from when the board is alone. 0 is without end.
	For time.Duration `yaml:"for"`
	// Safe are the outputs that go to their safe states when the lease is over, or "all"
	// for a safety shutdown. Empty leaves everything as it is.
	Safe []string `yaml:"safe"`
}

// Words of a config.
const (
	WhoRules  = "rules"
	WhoPeople = "people"
	SafeAll   = "all"
)

// Bounds of a config.
const (
	maxAllowances = 16
	maxNames      = 32 // commands or outputs of one
	minLease      = 10 * time.Second
	maxLease      = 30 * 24 * time.Hour
)

// Default allows all, after half a minute without the fleet: a reconnect takes seconds.
func Default() Config { return Config{Grace: 30 * time.Second, Back: 10 * time.Second} }

// Validate checks a config; each error names the key.
func (c *Config) Validate() error {
	var errs []error
	for _, s := range []struct {
		key string
		d   time.Duration
	}{{"grace", c.Grace}, {"back", c.Back}} {
		if s.d < time.Second || s.d > 24*time.Hour {
			errs = append(errs, fmt.Errorf("autonomy.%s: %v, wants 1s to 24h", s.key, s.d))
		}
	}
	if len(c.Allow) > maxAllowances {
		errs = append(errs, fmt.Errorf("autonomy.allow: %d, at most %d", len(c.Allow), maxAllowances))
	}
	seen := map[string]bool{}
	for i := range c.Allow {
		a := &c.Allow[i]
		if err := a.validate(); err != nil {
			errs = append(errs, fmt.Errorf("autonomy.allow[%d].%w", i, err))
		} else if seen[a.Name] {
			errs = append(errs, fmt.Errorf("autonomy.allow[%d].name: %q is there twice", i, a.Name))
		}
		seen[a.Name] = true
	}
	return errors.Join(errs...)
}

func (a *Allowance) validate() error {
	if err := schema.CheckBoard(a.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if len(a.Commands) == 0 || len(a.Commands) > maxNames || len(a.Safe) > maxNames {
		return fmt.Errorf("commands: %d, and %d outputs in safe; wants 1 to %d and at most %d", len(a.Commands), len(a.Safe), maxNames, maxNames)
	}
	for _, n := range slices.Concat(a.Commands, a.Safe) {
		if n == "" || len(n) > schema.MaxName {
			return fmt.Errorf("commands, safe: a name of %d bytes, wants 1 to %d", len(n), schema.MaxName)
		}
	}
	for _, w := range a.Who {
		if w != WhoRules && w != WhoPeople {
			return fmt.Errorf("who: %q, wants %s, %s", w, WhoRules, WhoPeople)
		}
	}
	switch {
	case a.For != 0 && (a.For < minLease || a.For > maxLease):
		return fmt.Errorf("for: %v, wants 0s (without end) or %v to %v", a.For, minLease, maxLease)
	case a.For == 0 && len(a.Safe) > 0:
		return errors.New("for: is 0s, without end, so nothing of safe would ever happen; give a lease or leave safe out")
	case slices.Contains(a.Safe, SafeAll) && len(a.Safe) > 1:
		return fmt.Errorf("safe: %q is all; leave %s out", SafeAll, strings.Join(a.Safe, ", "))
	}
	return nil
}

// names tells whether the allowance is about this command of this actor.
func (a *Allowance) names(who, command string) bool {
	return (len(a.Who) == 0 || slices.Contains(a.Who, who)) &&
		(slices.Contains(a.Commands, command) || slices.Contains(a.Commands, "*"))
}
