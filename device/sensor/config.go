// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"fulmar/device"
	"fulmar/schema"
)

const (
	// MaxSynthetic bounds the synthetic series: one full record.
	MaxSynthetic = schema.MaxSeries
	// MaxMounts bounds the mount points looked at.
	MaxMounts = 32
)

// Config says which host sensors are read. The names of the sensors are cpu,
// cpufreq, memory, disk, mounts, net, load, uptime, process, pressure, thermal,
// hwmon and synthetic.
type Config struct {
	// Disabled are names or globs of sensors that are not read.
	Disabled []string `yaml:"disabled"`
	// PerCore adds the load of each core.
	PerCore bool `yaml:"per_core"`
	// Mounts are the mount points whose use is told.
	Mounts []string `yaml:"mounts"`
	// HwmonSkip are driver names that the hwmon sensor leaves to others; by default
	// those that package jetson reads.
	HwmonSkip []string `yaml:"hwmon_skip"`
	// Synthetic is the number of made-up series, synthetic.000 and on, for load
	// tests; 0 none.
	Synthetic int `yaml:"synthetic"`
}

// DefaultConfig reads all sensors, the use of "/", and no made-up series.
func DefaultConfig() Config {
	return Config{
		Mounts:    []string{"/"},
		HwmonSkip: []string{"ina3221", "soctherm_oc", "pwmfan", "pwm_tach", "generic_pwm_tachometer", "tachometer"},
	}
}

// Validate checks names and counts.
func (c *Config) Validate() error {
	for _, p := range c.Disabled {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return fmt.Errorf("sensors: disabled: %q is no name or glob", p)
		}
	}
	if len(c.Mounts) > MaxMounts {
		return fmt.Errorf("sensors: %d mounts, at most %d", len(c.Mounts), MaxMounts)
	}
	for _, m := range c.Mounts {
		if !strings.HasPrefix(m, "/") {
			return fmt.Errorf("sensors: mount %q does not begin with /", m)
		}
	}
	if c.Synthetic < 0 || c.Synthetic > MaxSynthetic {
		return fmt.Errorf("sensors: synthetic %d, wants 0 to %d", c.Synthetic, MaxSynthetic)
	}
	return nil
}

// Enabled tells whether the sensor of that name is wanted; package jetson's
// sensors are asked about too.
func (c *Config) Enabled(name string) bool {
	return !slices.ContainsFunc(c.Disabled, func(p string) bool {
		ok, _ := path.Match(p, name) // checked by Validate
		return ok
	})
}

// New makes the host's sensors, none of which has been read yet.
func New(cfg Config, root device.Root) []device.Sensor {
	all := []device.Sensor{
		NewCPU(root, cfg.PerCore), NewCPUFreq(root), NewMemory(root), NewDisk(root), NewMounts(root, cfg.Mounts),
		NewNet(root), NewLoad(root), NewUptime(root), NewProcess(root), NewPressure(root),
		NewThermal(root), NewHwmon(root, cfg.HwmonSkip),
	}
	if cfg.Synthetic > 0 {
		all = append(all, NewSynthetic(cfg.Synthetic))
	}
	return slices.DeleteFunc(all, func(s device.Sensor) bool { return !cfg.Enabled(s.Name()) })
}
