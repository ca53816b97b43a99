// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"
)

// maxConfig bounds the config file, in bytes.
const maxConfig = 64 << 10

// Config is all the server is told.
type Config struct {
	// Data is the folder of databases, keys and pictures.
	Data string `yaml:"data"`
	// Listen is host:port of HTTPS: page, API, enrolment.
	Listen string `yaml:"listen"`
	// MQTT is host:port of the gateway for boards.
	MQTT string `yaml:"mqtt"`
	// Hosts are names and addresses by which boards and people reach the server;
	// its certificate holds them beside loopback.
	Hosts []string `yaml:"hosts"`
	// Broker is told to boards at enrolment; "" is the host they enrolled at and
	// the port of MQTT.
	Broker string `yaml:"broker"`
	// Foreign is a broker of somebody else to ingest from; empty address: none.
	Foreign ForeignConfig `yaml:"foreign"`
	// Keep bounds what is kept.
	Keep KeepConfig `yaml:"keep"`
	// Release is shown on the page.
	Release string `yaml:"-"`
}

// ForeignConfig names a broker that boards use in acknowledgement mode fleet.
type ForeignConfig struct {
	Address      string `yaml:"address"` // host:port
	Tenant       string `yaml:"tenant"`
	CAFile       string `yaml:"ca_file"` // PEM; "" = the system's authorities
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	// Plain allows a broker without TLS on loopback, for a broker on this machine.
	Plain bool `yaml:"plain"`
}

// KeepConfig bounds the ledger and the pictures; 0 is the default of package ingest.
type KeepConfig struct {
	Telemetry        time.Duration `yaml:"telemetry"`
	TelemetryMiB     int64         `yaml:"telemetry_mib"`
	Events           time.Duration `yaml:"events"`
	EventsMiB        int64         `yaml:"events_mib"`
	PicturesMiB      int64         `yaml:"pictures_mib"`
	BoardPicturesMiB int64         `yaml:"board_pictures_mib"`
}

// Default is the config of a server that was told nothing: loopback only.
func Default() Config {
	return Config{Data: "/var/lib/fulmar-fleet", Listen: "127.0.0.1:8443", MQTT: "127.0.0.1:8883"}
}

// Load reads a YAML file over the given config. Unknown keys are errors.
func Load(path string, into *Config) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open config: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if len(b) > maxConfig {
		return fmt.Errorf("read config: %s is over %d bytes", path, maxConfig)
	}
	if err := yaml.UnmarshalWithOptions(b, into, yaml.Strict()); err != nil {
		return fmt.Errorf("read config %s: %w", path, err)
	}
	return nil
}

// Validate checks the config; each error names the key and what would be right.
func (c *Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Data) {
		errs = append(errs, fmt.Errorf("data: %q is not an absolute path", c.Data))
	}
	addr := func(key, s string, optional bool) {
		if s == "" && optional {
			return
		}
		if _, port, err := net.SplitHostPort(s); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("%s: %q is not host:port", key, s))
		}
	}
	addr("listen", c.Listen, false)
	addr("mqtt", c.MQTT, false)
	addr("broker", c.Broker, true)
	addr("foreign.address", c.Foreign.Address, true)
	for _, h := range c.Hosts {
		if h == "" || len(h) > 253 {
			errs = append(errs, fmt.Errorf("hosts: %q is no host name or address", h))
		}
	}
	if c.Foreign.Plain {
		host, _, _ := net.SplitHostPort(c.Foreign.Address)
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			errs = append(errs, errors.New("foreign.plain: only a broker on this machine may be spoken to without TLS"))
		}
	}
	return errors.Join(errs...)
}
