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

	"fulmar/fleet/commands"
	"fulmar/fleet/enrol"
	"fulmar/fleet/releases"
	"fulmar/fleet/telemetry"
	"fulmar/fleet/updates"
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
	// Telemetry shapes the time series, and where else they go.
	Telemetry telemetry.Config `yaml:"telemetry"`
	// Enrol says which boards are let in.
	Enrol EnrolConfig `yaml:"enrol"`
	// Commands says which commands want a second person.
	Commands commands.Rules `yaml:"commands"`
	// Updates bounds what boards download.
	Updates updates.Rates `yaml:"updates"`
	// Release is shown on the page.
	Release string `yaml:"-"`
	// Patches makes patches between releases, in a process of its own; nil: none are made.
	Patches releases.Maker `yaml:"-"`
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

// EnrolConfig says which boards are let in, and by what.
type EnrolConfig struct {
	// Admit lists what lets a board in that the fleet does not know: token (a join
	// token), ek-list (its TPM is on EKList), ek-chain (a maker of EKRoots signed its
	// TPM), approval (a person on the page). Default token, ek-list, approval.
	Admit []string `yaml:"admit"`
	// EKRoots is a PEM file, or a folder of them, of the makers of TPMs that are
	// trusted, roots or what is below them. "" trusts none.
	EKRoots string `yaml:"ek_roots"`
	// EKList is a file of TPMs that are let in: a line is the SHA-256 of an endorsement
	// key in hex, and after a space the only name it may have, if any. Read again when
	// it changes. "" lists none.
	EKList string `yaml:"ek_list"`
	// Least is what a board must have to be let in: software (anything) or tpm. Boards
	// that are in stay. Default software.
	Least string `yaml:"least"`
}

// policy reads the files that the config names.
func (c *EnrolConfig) policy() (p enrol.Policy, err error) {
	admit := c.Admit
	if admit == nil {
		admit = []string{enrol.ByToken, enrol.ByList, enrol.ByApproval}
	}
	if p, err = enrol.NewPolicy(admit, c.Least); err != nil {
		return p, fmt.Errorf("enrol.%w", err)
	}
	if c.EKRoots != "" {
		if p.Roots, err = enrol.LoadRoots(c.EKRoots); err != nil {
			return p, fmt.Errorf("enrol.ek_roots: %w", err)
		}
	}
	if c.EKList != "" {
		if p.Listed, err = enrol.LoadList(c.EKList); err != nil {
			return p, fmt.Errorf("enrol.ek_list: %w", err)
		}
	}
	return p, nil
}

// validate checks what can be checked without the files.
func (c *EnrolConfig) validate() error {
	p, err := enrol.NewPolicy(c.Admit, c.Least)
	switch {
	case err != nil:
		return fmt.Errorf("enrol.%w", err)
	case p.Maker && c.EKRoots == "":
		return errors.New("enrol.admit: ek-chain wants enrol.ek_roots: whose signature is trusted?")
	case c.Admit != nil && p.List && c.EKList == "":
		return errors.New("enrol.admit: ek-list wants enrol.ek_list")
	case c.Admit != nil && len(c.Admit) == 0:
		return errors.New("enrol.admit: an empty list lets no board in; leave it out for the default")
	}
	return nil
}

// KeepConfig bounds the ledger and the pictures; 0 is the default of package ingest.
type KeepConfig struct {
	Telemetry        time.Duration `yaml:"telemetry"`
	TelemetryMiB     int64         `yaml:"telemetry_mib"`
	Events           time.Duration `yaml:"events"`
	EventsMiB        int64         `yaml:"events_mib"`
	PicturesMiB      int64         `yaml:"pictures_mib"`
	BoardPicturesMiB int64         `yaml:"board_pictures_mib"`
	ReleasesMiB      int64         `yaml:"releases_mib"` // objects of releases and patches; 0: 20 GiB
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
	// A file of comments alone, as it is installed, is null, which would clear the defaults.
	var doc any
	if err := yaml.Unmarshal(b, &doc); err == nil && doc == nil {
		return nil
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
	errs = append(errs, c.Enrol.validate())
	errs = append(errs, below("commands.", c.Commands.Validate())...)
	return errors.Join(append(errs, below("telemetry.", c.Telemetry.Validate())...)...)
}

// below puts the key in front of each of the errors that err joins.
func below(key string, err error) (errs []error) {
	if err == nil {
		return nil
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // of this one, not of what it wraps
		all = joined.Unwrap()
	}
	for _, e := range all {
		errs = append(errs, fmt.Errorf("%s%w", key, e))
	}
	return errs
}
