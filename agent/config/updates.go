// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"fulmar/agent/update/admit"
)

// Updates says when the board takes what its fleet gives it to install.
type Updates struct {
	Mode       string   `yaml:"mode"`        // on, off
	Windows    []string `yaml:"windows"`     // "mon-fri 22:00-04:00"; empty: at any time
	MaxCelsius float64  `yaml:"max_celsius"` // hotter than that none begins; 0: no bound
	PowerModes []string `yaml:"power_modes"` // nvpmodel's names; empty: in any
	MinBattery int      `yaml:"min_battery"` // per cent, while nothing charges it
	Slots      string   `yaml:"slots"`       // folder of the program's slots; "": that which it runs from
	// Programs are manifests of the site's own programs that bring a component into force.
	Programs []string `yaml:"programs"`
	// Peers are boards of the site that are asked for objects before the fleet is; Give is
	// where this one gives what it has.
	Peers []string `yaml:"peers"` // http://host:port
	Give  string   `yaml:"give"`  // host:port; "": nowhere
}

// The modes of updates.
const (
	UpdatesOn  = "on"
	UpdatesOff = "off"
)

// maxModes bounds the power modes that are named; nvpmodel has 16.
const maxModes = 32

// maxPrograms bounds the site's own: one for each kind of component.
const maxPrograms = 8

// maxPeers bounds the boards of the site that are asked: each that is away costs three seconds.
const maxPeers = 8

func (u *Updates) validate() error {
	errs := []error{oneOf("updates.mode", u.Mode, UpdatesOn, UpdatesOff)}
	if _, err := admit.ParseWindows(u.Windows); err != nil {
		errs = append(errs, fmt.Errorf("updates.windows%w", err))
	}
	if u.MaxCelsius != 0 && (u.MaxCelsius < 40 || u.MaxCelsius > 120) {
		errs = append(errs, fmt.Errorf("updates.max_celsius: %g, wants 0 (no bound) or 40 to 120", u.MaxCelsius))
	}
	if len(u.PowerModes) > maxModes {
		errs = append(errs, fmt.Errorf("updates.power_modes: %d of them, at most %d", len(u.PowerModes), maxModes))
	}
	if u.MinBattery < 0 || u.MinBattery > 100 {
		errs = append(errs, fmt.Errorf("updates.min_battery: %d, wants 0 to 100", u.MinBattery))
	}
	if len(u.Programs) > maxPrograms {
		errs = append(errs, fmt.Errorf("updates.programs: %d of them, at most %d", len(u.Programs), maxPrograms))
	}
	for i, p := range u.Programs {
		if !filepath.IsAbs(p) {
			errs = append(errs, fmt.Errorf("updates.programs[%d]: %q is not an absolute path", i, p))
		}
	}
	if u.Slots != "" && !filepath.IsAbs(u.Slots) {
		errs = append(errs, fmt.Errorf("updates.slots: %q is not an absolute path", u.Slots))
	}
	return errors.Join(append(errs, u.validatePeers())...)
}

func (u *Updates) validatePeers() error {
	var errs []error
	if len(u.Peers) > maxPeers {
		errs = append(errs, fmt.Errorf("updates.peers: %d of them, at most %d", len(u.Peers), maxPeers))
	}
	for i, p := range u.Peers {
		key := fmt.Sprintf("updates.peers[%d]", i)
		host, ok := strings.CutPrefix(p, "http://")
		if !ok || strings.ContainsAny(host, "/?#@") { // what comes is proven, whoever sent it
			errs = append(errs, fmt.Errorf("%s: %q, wants http://HOST:PORT", key, p))
			continue
		}
		errs = append(errs, hostPort(key, host))
	}
	if u.Give != "" {
		errs = append(errs, hostPort("updates.give", u.Give))
	}
	return errors.Join(errs...)
}

// Rules are when the board may be disturbed.
func (u *Updates) Rules() admit.Rules {
	ws, _ := admit.ParseWindows(u.Windows) // validated
	return admit.Rules{Windows: ws, MaxCelsius: u.MaxCelsius, PowerModes: u.PowerModes, MinBattery: u.MinBattery}
}

// OTADir is where updates keep their record and what they bring; see [Config.SpoolDir].
func (c *Config) OTADir() string { return filepath.Join(c.Data, "ota") }

// FloorDir is where the lowest release that may be installed is kept; see [Config.SpoolDir].
func (c *Config) FloorDir() string { return filepath.Join(c.Data, "floor") }
