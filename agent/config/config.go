// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"fulmar/agent/autonomy"
	"fulmar/device/output/kinds"
	"fulmar/device/rule"
	"fulmar/device/schedule"
	"fulmar/device/sensor"
	"fulmar/schema"
)

// Limits of the config. They bound memory, not taste.
const (
	maxCameras = 64
	maxModels  = 32
)

// Config is all a board is told. Its YAML form is strict: see [Load].
type Config struct {
	Board   string        `yaml:"board"`
	Data    string        `yaml:"data"`
	Log     Log           `yaml:"log"`
	Fleet   Fleet         `yaml:"fleet"`
	Broker  Broker        `yaml:"broker"`
	Key     Key           `yaml:"key"`
	TPM     TPM           `yaml:"tpm"`
	Sensors sensor.Config `yaml:"sensors"`
	Sample  schedule.Plan `yaml:"sample"`
	// Outputs are what the board moves; see docs/outputs.md.
	Outputs []kinds.Config `yaml:"outputs"`
	Spool   Spool          `yaml:"spool"`
	Link    Link           `yaml:"link"`
	Infer   Infer          `yaml:"infer"`
	Models  []Model        `yaml:"models"`
	Cameras []Camera       `yaml:"cameras"`
	// Rules and Shed decide on the board: docs/rules.md. The twin's go before them.
	Rules    []rule.Spec     `yaml:"rules"`
	Shed     []rule.Step     `yaml:"shed"`
	Autonomy autonomy.Config `yaml:"autonomy"`
	Status   Status          `yaml:"status"`
	Local    Local           `yaml:"local"`
	Twin     Twin            `yaml:"twin"`
	Updates  Updates         `yaml:"updates"`
}

// Log shapes the log on standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// Fleet names the fleet this board belongs to.
type Fleet struct {
	// Address is host:port of the fleet's HTTPS; "" with a broker of one's own, and on a
	// board that was not enrolled yet: it samples, keeps, and says so.
	Address   string `yaml:"address"`
	TokenFile string `yaml:"token_file"` // join token, read once at enrolment
	// Pin is the SHA-256 of the fleet's CA certificate (DER), 64 hex digits: whom a
	// board without a token may ask. "": only a token or an earlier enrolment says it.
	Pin string `yaml:"pin"`
}

// PinHash is Pin as bytes; nil where there is none.
func (f *Fleet) PinHash() ([]byte, error) {
	if f.Pin == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(f.Pin)
	if err != nil || len(b) != sha256.Size {
		return nil, errors.New("fleet.pin: is not 64 hex digits; `fulmar-fleet pin` prints it")
	}
	return b, nil
}

// Broker names a broker other than the fleet's gateway.
type Broker struct {
	Address      string `yaml:"address"` // host:port; "" = the fleet's gateway
	Acknowledge  string `yaml:"acknowledge"`
	CAFile       string `yaml:"ca_file"`
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	Tenant       string `yaml:"tenant"`
	TLS          string `yaml:"tls"` // the least version: 1.3, or 1.2 for an old broker
}

// Key says where the board's private key lives.
type Key struct {
	Mode string `yaml:"mode"` // KeyAuto, KeyTPM, KeySoftware
}

// Where the board's private key lives.
const (
	// KeyAuto: where it was made. The first time: in a TPM if the board has one, else
	// in a file.
	KeyAuto     = "auto"
	KeyTPM      = schema.KeyTPM
	KeySoftware = schema.KeySoftware
)

// TPM says where the TPM is.
type TPM struct {
	Path string `yaml:"path"` // /dev/tpmrm0 (also if ""), unix:/path, tcp:host:port
	// Required: without a TPM the board gets no identity; it samples and keeps.
	Required bool `yaml:"required"`
}

// Spool bounds the disk that undelivered records may take, in MiB.
type Spool struct {
	AlarmMiB    int64 `yaml:"alarm_mib"`
	EventMiB    int64 `yaml:"event_mib"`
	MetricMiB   int64 `yaml:"metric_mib"`
	SnapshotMiB int64 `yaml:"snapshot_mib"`
	PicturesMiB int64 `yaml:"pictures_mib"`
	TTL         TTL   `yaml:"ttl"`
	// Encrypt says who holds the key: one of the Encrypt constants.
	Encrypt string `yaml:"encrypt"`
	// KeyFile is where the key lies; "": in the data folder.
	KeyFile string `yaml:"key_file"`
	// RecoveryKey is the public half of the fleet's recovery key, PEM; "": none.
	RecoveryKey string `yaml:"recovery_key"`
}

// TTL is how old records may become before they are sent; 0 is as old as it takes.
type TTL struct {
	Event  time.Duration `yaml:"event"`
	Metric time.Duration `yaml:"metric"`
}

// maxTTL is longer than any board runs.
const maxTTL = 20 * 365 * 24 * time.Hour

// Who holds the key of the spool.
const (
	EncryptAuto = "auto" // who holds the board's private key, TPM or a file
	EncryptTPM  = "tpm"
	EncryptFile = "file"
	EncryptOff  = "off"
)

// Link shapes the connection.
type Link struct {
	KeepAlive time.Duration `yaml:"keep_alive"`
	// ReconnectWindow is the time over which reconnects spread until the fleet
	// has told its own.
	ReconnectWindow time.Duration `yaml:"reconnect_window"`
}

// Infer says how the worker is run.
type Infer struct {
	Mode    string `yaml:"mode"`    // unit (own systemd unit), child, off
	Socket  string `yaml:"socket"`  // unix socket of the worker; "" = in the data folder (child)
	Program string `yaml:"program"` // path of fulmar-infer (child)
	Library string `yaml:"library"` // path of libonnxruntime; "" = where the worker looks
	// TensorRT are the folders of its libraries, with : between them; "" = where the
	// worker looks.
	TensorRT string `yaml:"tensorrt"`
	Threads  int    `yaml:"threads"`
	// EngineCache is the folder of engines built on this board, "" = that of the worker's
	// unit, or in the data folder where the worker is a child.
	EngineCache string `yaml:"engine_cache"`
	// EngineCacheMiB bounds it.
	EngineCacheMiB int64  `yaml:"engine_cache_mib"`
	DLA            string `yaml:"dla"` // auto, off
	// MaxBatch is how many pictures of different cameras one run may look at.
	MaxBatch int `yaml:"max_batch"`
}

// Model is a model package on this board.
type Model struct {
	Name    string `yaml:"name"`
	Path    string `yaml:"path"`
	Variant string `yaml:"variant"`
	Engine  string `yaml:"engine"` // auto ("" too), onnxruntime, tensorrt
	// Paused: its cameras stand still. Only the twin sets it: a config file leaves the
	// model out.
	Paused bool `yaml:"-"`
}

// Camera is one source of pictures.
type Camera struct {
	Name          string        `yaml:"name"`
	Kind          string        `yaml:"kind"` // files, scene
	Path          string        `yaml:"path"`
	FPS           float64       `yaml:"fps"`
	Seed          uint64        `yaml:"seed"`
	Density       float64       `yaml:"density"`
	Model         string        `yaml:"model"`
	EventEvery    time.Duration `yaml:"event_every"`
	SnapshotEvery time.Duration `yaml:"snapshot_every"`
}

// Status says where /metrics and /healthz are served.
type Status struct {
	Listen    string `yaml:"listen"`     // unix:PATH or host:port; "" = unix socket in the data folder; "off"
	TokenFile string `yaml:"token_file"` // bearer token; required for host:port
}

// Default is the config of a board that was told nothing.
func Default() Config {
	return Config{
		Data:     "/var/lib/fulmard",
		Log:      Log{Level: "info", Format: "text"},
		Key:      Key{Mode: KeyAuto},
		Broker:   Broker{Acknowledge: "broker", Tenant: "default", TLS: "1.3"},
		Sensors:  sensor.DefaultConfig(),
		Sample:   schedule.DefaultPlan(),
		Spool:    Spool{AlarmMiB: 32, EventMiB: 256, MetricMiB: 256, SnapshotMiB: 16, PicturesMiB: 512, Encrypt: EncryptAuto},
		Link:     Link{KeepAlive: 60 * time.Second, ReconnectWindow: 30 * time.Second},
		Autonomy: autonomy.Default(),
		Infer:    Infer{Mode: "unit", Socket: "/run/fulmar/infer.sock", Threads: 2, EngineCacheMiB: 2048, DLA: "auto", MaxBatch: 4},
		Local:    Local{Operators: []string{"root", "%fulmar-operators"}, Viewers: []string{}},
		Updates:  Updates{Mode: UpdatesOn, Windows: []string{}, MaxCelsius: 95, PowerModes: []string{}, MinBattery: 40, Programs: []string{}, Peers: []string{}},
	}
}

// Validate checks the config as a whole. Each error names the key, what is
// wrong with it and what would be right.
func (c *Config) Validate() error {
	return errors.Join(
		c.validateNames(),
		c.validateFleet(),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		oneOf("log.format", c.Log.Format, "text", "json"),
		c.validateKey(),
		c.Sensors.Validate(),
		c.Sample.Validate(),
		kinds.Validate(c.Outputs),
		c.validateSpool(),
		c.validateLink(),
		c.validateInfer(),
		rule.Validate(c.Rules, c.Shed),
		c.Autonomy.Validate(),
		c.validateStatus(),
		c.Local.validate(),
		c.Twin.validate(),
		c.Updates.validate(),
	)
}

func (c *Config) validateNames() error {
	var errs []error
	if c.Board != "" {
		if err := schema.CheckBoard(c.Board); err != nil {
			errs = append(errs, fmt.Errorf("board: %w", err))
		}
	}
	if !filepath.IsAbs(c.Data) {
		errs = append(errs, fmt.Errorf("data: %q is not an absolute path", c.Data))
	}
	return errors.Join(errs...)
}

func (c *Config) validateKey() error {
	errs := []error{oneOf("key.mode", c.Key.Mode, KeyAuto, KeyTPM, KeySoftware)}
	if c.TPM.Required && c.Key.Mode == KeySoftware {
		errs = append(errs, errors.New("tpm.required: is true while key.mode is software; leave one of them out"))
	}
	network, _, socket := strings.Cut(c.TPM.Path, ":")
	if p := c.TPM.Path; p != "" && !filepath.IsAbs(p) && (!socket || network != "unix" && network != "tcp") {
		errs = append(errs, fmt.Errorf("tpm.path: %q is neither an absolute path nor unix:/path nor tcp:host:port", p))
	}
	return errors.Join(errs...)
}

func (c *Config) validateFleet() error {
	var errs []error
	if _, err := c.Fleet.PinHash(); err != nil {
		errs = append(errs, err)
	}
	switch {
	case c.Fleet.Address == "" && (c.Fleet.TokenFile != "" || c.Fleet.Pin != ""):
		errs = append(errs, errors.New("fleet.address: is empty beside fleet.token_file or fleet.pin; give the fleet's host:port"))
	case c.Fleet.Address != "":
		errs = append(errs, hostPort("fleet.address", c.Fleet.Address))
	}
	if c.Broker.Address != "" {
		errs = append(errs, hostPort("broker.address", c.Broker.Address),
			oneOf("broker.acknowledge", c.Broker.Acknowledge, "broker", "fleet"),
			oneOf("broker.tls", c.Broker.TLS, "1.3", "1.2"))
		if err := schema.CheckBoard(c.Broker.Tenant); err != nil {
			errs = append(errs, fmt.Errorf("broker.tenant: %w", err))
		}
		if c.Board == "" {
			errs = append(errs, errors.New("board: is empty; with broker.address a board must be named"))
		}
	}
	return errors.Join(errs...)
}

func (c *Config) validateSpool() error {
	var errs []error
	for _, q := range []struct {
		key string
		mib int64
	}{
		{"alarm_mib", c.Spool.AlarmMiB},
		{"event_mib", c.Spool.EventMiB},
		{"metric_mib", c.Spool.MetricMiB},
		{"snapshot_mib", c.Spool.SnapshotMiB},
		{"pictures_mib", c.Spool.PicturesMiB},
	} {
		if q.mib < 1 || q.mib > 1<<20 {
			errs = append(errs, fmt.Errorf("spool.%s: %d, wants 1 to %d", q.key, q.mib, 1<<20))
		}
	}
	for key, ttl := range map[string]time.Duration{"event": c.Spool.TTL.Event, "metric": c.Spool.TTL.Metric} {
		if ttl != 0 && (ttl < time.Minute || ttl > maxTTL) {
			errs = append(errs, fmt.Errorf("spool.ttl.%s: %v, wants 0s (never too old) or %v to %v", key, ttl, time.Minute, maxTTL))
		}
	}
	errs = append(errs, oneOf("spool.encrypt", c.Spool.Encrypt, EncryptAuto, EncryptTPM, EncryptFile, EncryptOff))
	return errors.Join(errs...)
}

func (c *Config) validateLink() error {
	if c.Link.KeepAlive < 5*time.Second || c.Link.KeepAlive > 240*time.Second {
		return fmt.Errorf("link.keep_alive: %v, wants 5s to 4m", c.Link.KeepAlive)
	}
	if c.Link.ReconnectWindow < 0 || c.Link.ReconnectWindow > time.Hour {
		return fmt.Errorf("link.reconnect_window: %v, wants 0s to 1h", c.Link.ReconnectWindow)
	}
	return nil
}

func (c *Config) validateStatus() error {
	l := c.Status.Listen
	if l == "" || l == "off" || strings.HasPrefix(l, "unix:/") {
		return nil
	}
	if err := hostPort("status.listen", l); err != nil {
		return err
	}
	if c.Status.TokenFile == "" {
		return fmt.Errorf("status.token_file: is empty; %s is open to every program of this machine, so it wants a token", l)
	}
	return nil
}

// SpoolDir, BlobDir, IdentityDir, LastGoodPath, StatusSocket and LocalSocket are the places in
// the data folder.
func (c *Config) SpoolDir() string { return filepath.Join(c.Data, "spool") }

// SpoolKeyFile is where the spool's key lies.
func (c *Config) SpoolKeyFile() string {
	if c.Spool.KeyFile != "" {
		return c.Spool.KeyFile
	}
	return filepath.Join(c.Data, "spool.key")
}

// BlobDir is where the worker writes pictures; see [Config.SpoolDir].
func (c *Config) BlobDir() string { return filepath.Join(c.Data, "pictures") }

// unitEngines is in the state folder of fulmar-infer.service: engines are code, so only
// the user that runs them may put one there.
const unitEngines = "/var/lib/fulmar-infer/engines"

// EngineDir is where the worker keeps engines built on this board.
func (c *Config) EngineDir() string {
	if c.Infer.EngineCache != "" {
		return c.Infer.EngineCache
	}
	if c.Infer.Mode == "unit" {
		return unitEngines
	}
	return filepath.Join(c.Data, "engines")
}

// IdentityDir holds key and certificate; see [Config.SpoolDir].
func (c *Config) IdentityDir() string { return filepath.Join(c.Data, "identity") }

// LastGoodPath is the copy of the last config that was applied.
func (c *Config) LastGoodPath() string { return filepath.Join(c.Data, "config.last-good.yaml") }

// StatusSocket is where status is served when nothing else is said.
func (c *Config) StatusSocket() string { return filepath.Join(c.Data, "status.sock") }

func oneOf(key, got string, want ...string) error {
	for _, w := range want {
		if got == w {
			return nil
		}
	}
	return fmt.Errorf("%s: %q, wants %s", key, got, strings.Join(want, ", "))
}

func hostPort(key, s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("%s: %q is not host:port", key, s)
	}
	return nil
}

// within puts the place before each line of an error.
func within(place string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s.%w", place, err)
}
