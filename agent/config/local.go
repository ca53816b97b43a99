// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"fulmar/schema/onboard"
)

// Local says who at the board may do what, over the socket in the data folder. Users and,
// with % before them, groups: by name, or by number.
type Local struct {
	Operators []string `yaml:"operators"`
	Viewers   []string `yaml:"viewers"` // empty: everybody who can open the socket
}

// maxPeople bounds each list: a plant has shifts, and groups for them.
const maxPeople = 64

// validate checks the form; whether there are such users and groups is asked when somebody
// comes, so that a group made later counts.
func (l *Local) validate() error {
	// As useradd(8) has them, and longer ones of directory services; or a number.
	form := regexp.MustCompile(`^%?([a-zA-Z_][a-zA-Z0-9_.@-]{0,47}\$?|[0-9]{1,10})$`)
	var errs []error
	for _, list := range []struct {
		key string
		all []string
	}{{"operators", l.Operators}, {"viewers", l.Viewers}} {
		if len(list.all) > maxPeople {
			errs = append(errs, fmt.Errorf("local.%s: %d entries, at most %d; name a group", list.key, len(list.all), maxPeople))
		}
		for _, e := range list.all {
			if !form.MatchString(e) {
				errs = append(errs, fmt.Errorf("local.%s: %.60q is no user and no group: anna, 1000, or with %% before it a group", list.key, e))
			}
		}
	}
	return errors.Join(errs...)
}

// LocalSocket is where people at the board ask; see [Config.SpoolDir].
func (c *Config) LocalSocket() string { return filepath.Join(c.Data, onboard.Socket) }
