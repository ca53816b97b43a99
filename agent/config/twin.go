// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"fulmar/twin"
)

// maxPolicies bounds the policies: each key that is set is matched against all of them.
const maxPolicies = 64

// Twin says how the board's twin decides.
type Twin struct {
	Policies []TwinPolicy `yaml:"policies"`
}

// TwinPolicy is who decides about the keys of the twin that fit a glob.
type TwinPolicy struct {
	Key    string `yaml:"key"`    // glob: "app.setpoint*"
	Policy string `yaml:"policy"` // fleet, edge, max, min, hold
}

// Policy tells who decides about a key: the first that fits, else the fleet.
func (t *Twin) Policy(key string) twin.Policy {
	for _, p := range t.Policies {
		if fits, _ := path.Match(p.Key, key); fits {
			w, _ := twin.ParsePolicy(p.Policy) // validated
			return w
		}
	}
	return twin.PolicyFleet
}

func (t *Twin) validate() error {
	var errs []error
	if n := len(t.Policies); n > maxPolicies {
		errs = append(errs, fmt.Errorf("twin.policies: %d of them, at most %d", n, maxPolicies))
	}
	for i, p := range t.Policies {
		// A key has no '/', which alone * does not stand for.
		if _, err := path.Match(p.Key, ""); err != nil || p.Key == "" || strings.Contains(p.Key, "/") {
			errs = append(errs, fmt.Errorf("twin.policies[%d].key: %q is no key of a twin and no glob of keys", i, p.Key))
		}
		if _, err := twin.ParsePolicy(p.Policy); err != nil {
			errs = append(errs, fmt.Errorf("twin.policies[%d].policy: %w", i, err))
		}
	}
	return errors.Join(errs...)
}
