// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package mqtt is an output behind a broker of the site: a value is published to a topic,
// and what the device says on another topic is where it stands. It has a connection of its
// own, apart from the one to the fleet, opened when it is first needed.
package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/guard"
)

const (
	// Value is what stands for the value in a payload.
	Value = "{value}"

	maxTopic   = 256      // bytes
	maxPayload = 1 << 10  // bytes of ours
	maxState   = 4 << 10  // bytes of a device's; Zigbee gateways say some hundred
	maxSecret  = 1 << 10  // bytes
	maxPEM     = 64 << 10 // bytes
	keepAlive  = 30 * time.Second
	goodbye    = 100 // ms that a DISCONNECT gets
)

// Config says where the device listens.
type Config struct {
	Broker       string `yaml:"broker"`  // host:port
	TLS          bool   `yaml:"tls"`     // the broker has a certificate
	CAFile       string `yaml:"ca_file"` // PEM of who signed it; "" uses the system's
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	ClientID     string `yaml:"client_id"` // "" is fulmar-NAME
	Topic        string `yaml:"topic"`
	// Payload is what is said; {value} in it is the value. "" is {value}.
	Payload string `yaml:"payload"`
	// On and Off are said instead for 1 and 0, and understood on the state topic.
	On     string `yaml:"on_payload"`
	Off    string `yaml:"off_payload"`
	Retain bool   `yaml:"retain"`
	// StateTopic is where the device says where it stands: a number, On or Off, or a JSON
	// object with one of these as its StateField.
	StateTopic string `yaml:"state_topic"`
	StateField string `yaml:"state_field"`
}

// Validate checks the form.
func (c *Config) Validate() error {
	if host, port, err := net.SplitHostPort(c.Broker); err != nil || host == "" || port == "" {
		return fmt.Errorf("broker: %q is not host:port", c.Broker)
	}
	for key, topic := range map[string]string{"topic": c.Topic, "state_topic": c.StateTopic} {
		if topic == "" && key == "state_topic" {
			continue
		}
		if topic == "" || len(topic) > maxTopic || strings.ContainsAny(topic, "+#\x00") {
			return fmt.Errorf("%s: %.40q, wants 1 to %d bytes without + and #", key, topic, maxTopic)
		}
	}
	switch {
	case (c.On == "") != (c.Off == ""):
		return errors.New("on_payload, off_payload: want both or none")
	case len(c.Payload)+len(c.On)+len(c.Off) > maxPayload:
		return fmt.Errorf("payload, on_payload, off_payload: are over %d bytes", maxPayload)
	case c.Payload != "" && !strings.Contains(c.Payload, Value):
		return fmt.Errorf("payload: has no %s, so the device would not hear the value", Value)
	case c.StateField != "" && c.StateTopic == "":
		return errors.New("state_field: is given without state_topic")
	case !c.TLS && c.CAFile != "":
		return errors.New("ca_file: is given without tls: true")
	}
	for key, path := range map[string]string{"ca_file": c.CAFile, "password_file": c.PasswordFile} {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("%s: %q is not an absolute path", key, path)
		}
	}
	return nil
}

// Output is one topic. Safe for concurrent use.
type Output struct {
	name string
	cfg  Config
	log  *slog.Logger

	mu   sync.Mutex // one word at a time
	conn *conn      // nil while there is none
}

// conn is one connection.
type conn struct {
	client paho.Client
	lost   chan struct{}
	once   sync.Once

	mu    sync.Mutex
	heard bool
	state float64
	bad   error // the last state was none
}

// New makes one that is not connected yet.
func New(name string, cfg Config, log *slog.Logger) *Output {
	if cfg.Payload == "" {
		cfg.Payload = Value
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "fulmar-" + name
	}
	return &Output{name: name, cfg: cfg, log: log}
}

// Name is the output's.
func (o *Output) Name() string { return o.name }

// Set publishes the value and waits for the broker's PUBACK. That the device took it is
// known by its state topic alone.
func (o *Output) Set(ctx context.Context, value float64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, err := o.connected(ctx)
	if err != nil {
		return err
	}
	if err := c.await(ctx, c.client.Publish(o.cfg.Topic, 1, o.cfg.Retain, o.cfg.say(value))); err != nil {
		o.drop() // with it what was not acknowledged: it must not be said later
		return fmt.Errorf("publish to %s on %s: %w", o.cfg.Topic, o.cfg.Broker, err)
	}
	return nil
}

// Get tells what the device said last on this connection; known is false where it has not
// said anything, or has no state topic.
func (o *Output) Get(ctx context.Context) (float64, bool, error) {
	if o.cfg.StateTopic == "" {
		return 0, false, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	c, err := o.connected(ctx)
	if err != nil {
		return 0, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad != nil {
		return 0, false, c.bad
	}
	return c.state, c.heard, nil
}

// Close ends the connection.
func (o *Output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
	return nil
}

func (o *Output) drop() {
	if o.conn != nil {
		o.conn.client.Disconnect(goodbye)
		o.conn = nil
	}
}

// say is a value as the device understands it.
func (c *Config) say(v float64) string {
	switch {
	case c.On != "" && v == 1:
		return c.On
	case c.On != "" && v == 0:
		return c.Off
	}
	return strings.ReplaceAll(c.Payload, Value, strconv.FormatFloat(v, 'f', -1, 64))
}

// hear is what a device says as a value.
func (c *Config) hear(b []byte) (float64, error) {
	text := strings.TrimSpace(string(b))
	if c.StateField != "" {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(b, &m); err != nil || m[c.StateField] == nil {
			return 0, fmt.Errorf("the device says %.60q, which has no field %s", text, c.StateField)
		}
		text = string(m[c.StateField])
		var s string
		if json.Unmarshal(m[c.StateField], &s) == nil {
			text = s
		}
	}
	switch {
	case c.On != "" && text == c.On:
		return 1, nil
	case c.On != "" && text == c.Off:
		return 0, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("the device says %.60q, which is no value", text)
	}
	return v, nil
}

// await waits for the broker's answer.
func (c *conn) await(ctx context.Context, t paho.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-c.lost:
		return errors.New("the connection was lost")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connected gives the connection that is there, or a new one.
func (o *Output) connected(ctx context.Context) (*conn, error) {
	if o.conn != nil {
		select {
		case <-o.conn.lost:
			o.drop()
		default:
			return o.conn, nil
		}
	}
	c := &conn{lost: make(chan struct{})}
	opt, err := o.options(ctx, c)
	if err != nil {
		return nil, err
	}
	c.client = paho.NewClient(opt)
	err = c.await(ctx, c.client.Connect())
	if err == nil && o.cfg.StateTopic != "" {
		err = c.await(ctx, c.client.Subscribe(o.cfg.StateTopic, 1, nil))
	}
	if err != nil {
		c.client.Disconnect(0)
		return nil, fmt.Errorf("connect to %s: %w", o.cfg.Broker, err)
	}
	o.conn = c
	return c, nil
}

func (o *Output) options(ctx context.Context, c *conn) (*paho.ClientOptions, error) {
	password, err := readSecret(o.cfg.PasswordFile, maxSecret)
	if err != nil {
		return nil, err
	}
	var conf *tls.Config
	if o.cfg.TLS {
		host, _, _ := net.SplitHostPort(o.cfg.Broker) // checked by Validate
		conf = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
		if o.cfg.CAFile != "" {
			pem, err := readSecret(o.cfg.CAFile, maxPEM)
			if err != nil {
				return nil, err
			}
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM([]byte(pem)) {
				return nil, fmt.Errorf("%s: has no certificate in it", o.cfg.CAFile)
			}
		}
	}
	timeout := guard.WriteTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = time.Until(end)
	}
	dial := func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		var raw net.Conn
		var err error
		if conf != nil {
			raw, err = (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", o.cfg.Broker)
		} else {
			raw, err = (&net.Dialer{}).DialContext(ctx, "tcp", o.cfg.Broker)
		}
		if err != nil {
			return nil, err
		}
		return guard.New(raw, guard.Config{Filters: 1, MaxPacket: maxTopic + maxState}), nil
	}
	return paho.NewClientOptions().AddBroker("tcp://broker").SetClientID(o.cfg.ClientID).SetProtocolVersion(4).
		SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false).
		SetStore(guard.NoStore{}).SetOrderMatters(true).SetKeepAlive(keepAlive).SetConnectTimeout(timeout).
		SetUsername(o.cfg.Username).SetPassword(password).SetCustomOpenConnectionFn(dial).
		SetConnectionLostHandler(func(_ paho.Client, err error) {
			o.log.Warn("output's broker lost", "output", o.name, "err", err)
			c.once.Do(func() { close(c.lost) })
		}).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
			v, err := o.cfg.hear(m.Payload())
			c.mu.Lock()
			defer c.mu.Unlock()
			c.state, c.heard, c.bad = v, err == nil, err
		}), nil
}

// readSecret reads a small file, without the line's end; "" is none.
func readSecret(path string, most int64) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: is over %d bytes", path, most)
	}
	return strings.TrimRight(string(b), "\r\n"), err
}
