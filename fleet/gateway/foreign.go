// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ingest"
	"fulmar/internal/run"
	"fulmar/schema"
)

const (
	// lanes is how many messages are in ingest at one time: boards are spread over
	// them, each board's messages stay in order.
	lanes = 16
	// laneLen bounds the messages waiting in one lane. When it is full a message is
	// dropped: it was not acknowledged by us, so its board sends it again.
	laneLen = 64
	// maxForeign bounds the boards heard of by name only.
	maxForeign = 10_000
	// retryMin and retryMax bound the wait before the next connection.
	retryMin = time.Second
	retryMax = time.Minute
	// foreignTimeout bounds each exchange with the broker.
	foreignTimeout = 10 * time.Second
)

// ForeignConfig names somebody else's broker.
type ForeignConfig struct {
	Address  string      // host:port
	TLS      *tls.Config // nil: plain, only for a broker on this machine
	Tenant   string      // whose boards speak there
	Username string
	Password string
}

// ForeignStats are counters since the start.
type ForeignStats struct {
	Connected bool
	Messages  uint64 // stored
	Dropped   uint64 // not taken or not stored: their boards send again
	Refused   uint64 // payloads that can never be understood
}

// Foreign ingests from somebody else's broker. That broker's PUBACK says nothing
// of our disk, so boards keep their records until the fleet's own [schema.Ack]
// comes on their topic ack. Who may write to which topic is up to that broker:
// there are no certificates of ours.
type Foreign struct {
	cfg    ForeignConfig
	ingest Ingester
	log    *slog.Logger
	lanes  [lanes]chan letter

	mu     sync.Mutex
	boards map[string]bool

	connected                  atomic.Bool
	messages, dropped, refused atomic.Uint64
}

// letter is one message on its way to ingest.
type letter struct {
	client  mqtt.Client // of the connection it came by: the answer goes there
	topic   schema.Topic
	raw     string
	payload []byte
}

// NewForeign makes an ingester from a foreign broker.
func NewForeign(cfg ForeignConfig, in Ingester, log *slog.Logger) (*Foreign, error) {
	if cfg.Tenant == "" {
		cfg.Tenant = "default"
	}
	if err := schema.CheckBoard(cfg.Tenant); err != nil {
		return nil, fmt.Errorf("foreign broker: tenant: %w", err)
	}
	f := &Foreign{cfg: cfg, ingest: in, log: log, boards: map[string]bool{}}
	for i := range f.lanes {
		f.lanes[i] = make(chan letter, laneLen)
	}
	return f, nil
}

// Stats tells the counters.
func (f *Foreign) Stats() ForeignStats {
	return ForeignStats{Connected: f.connected.Load(), Messages: f.messages.Load(), Dropped: f.dropped.Load(), Refused: f.refused.Load()}
}

// Run stays connected until the context ends.
func (f *Foreign) Run(ctx context.Context) error {
	g := run.New(ctx)
	for i := range f.lanes {
		g.Go("lane", func(ctx context.Context) error { return f.work(ctx, f.lanes[i]) })
	}
	g.Go("connection", f.stay)
	return g.Wait(stopTimeout)
}

// stay keeps one connection after another; each is a new client, so that nothing
// of a lost one lives on.
func (f *Foreign) stay(ctx context.Context) error {
	wait := retryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := f.once(ctx)
		f.connected.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > retryMax {
			wait = retryMin
		}
		f.log.Warn("foreign broker not connected", "address", f.cfg.Address, "error", err.Error(), "next_within", wait.String())
		select {
		case <-time.After(jitter(wait)):
		case <-ctx.Done():
		}
		wait = min(2*wait, retryMax)
	}
	return nil
}

// jitter spreads a wait over 0 to d.
func jitter(d time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(d)))
	if err != nil {
		return d
	}
	return time.Duration(n.Int64())
}

// once connects, subscribes and waits for the end of the connection.
func (f *Foreign) once(ctx context.Context) error {
	lost := make(chan error, 1)
	scheme := "ssl://"
	if f.cfg.TLS == nil {
		scheme = "tcp://"
	}
	var id [8]byte
	_, _ = rand.Read(id[:])
	o := mqtt.NewClientOptions().AddBroker(scheme + f.cfg.Address).SetClientID("fulmar-fleet-" + hex.EncodeToString(id[:])).
		SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false).
		SetKeepAlive(30 * time.Second).SetPingTimeout(foreignTimeout).SetWriteTimeout(foreignTimeout).SetConnectTimeout(foreignTimeout).
		SetUsername(f.cfg.Username).SetPassword(f.cfg.Password)
	if f.cfg.TLS != nil {
		o.SetTLSConfig(f.cfg.TLS.Clone())
	}
	o.SetDefaultPublishHandler(f.receive)
	o.SetConnectionLostHandler(func(_ mqtt.Client, err error) {
		select {
		case lost <- err:
		default:
		}
	})
	c := mqtt.NewClient(o)
	defer c.Disconnect(100) // ms
	if err := within(c.Connect()); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	filters := map[string]byte{}
	for _, ch := range []schema.Channel{schema.ChanPresence, schema.ChanHello, schema.ChanStream + "+", schema.ChanEvent + "+", schema.ChanBlob + "+"} {
		filters[schema.TopicRoot+"/"+f.cfg.Tenant+"/+/"+string(ch)] = 1
	}
	tok := c.SubscribeMultiple(filters, nil)
	if err := within(tok); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	for filter, qos := range tok.(*mqtt.SubscribeToken).Result() {
		if qos != 1 {
			return fmt.Errorf("subscribe: the broker grants %#x for %s, wants 1; give this user the right to read it", qos, filter)
		}
	}
	f.connected.Store(true)
	f.log.Info("foreign broker connected", "address", f.cfg.Address, "tenant", f.cfg.Tenant)
	select {
	case err := <-lost:
		return err
	case <-ctx.Done():
		return nil
	}
}

var errNoAnswer = errors.New("no answer in time")

func within(t mqtt.Token) error {
	if !t.WaitTimeout(foreignTimeout) {
		return errNoAnswer
	}
	return t.Error()
}

// receive runs in paho's only reader: it never waits.
func (f *Foreign) receive(c mqtt.Client, m mqtt.Message) {
	t, err := schema.ParseTopic(m.Topic())
	if err != nil || t.Tenant != f.cfg.Tenant || !f.know(t.Board) {
		f.dropped.Add(1)
		return
	}
	h := uint32(2166136261) // FNV-1a
	for _, b := range []byte(t.Board) {
		h = (h ^ uint32(b)) * 16777619
	}
	select {
	case f.lanes[h%lanes] <- letter{c, t, m.Topic(), m.Payload()}:
	default:
		f.dropped.Add(1)
	}
}

// know remembers a board; false where there are too many.
func (f *Foreign) know(board string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.boards[board] {
		if len(f.boards) >= maxForeign {
			return false
		}
		f.boards[board] = true
	}
	return true
}

func (f *Foreign) work(ctx context.Context, lane <-chan letter) error {
	for {
		select {
		case l := <-lane:
			one, cancel := context.WithTimeout(ctx, ingestTimeout)
			if err := f.take(one, l); err != nil && ctx.Err() == nil {
				f.dropped.Add(1)
				f.log.Error("message not stored", "board", l.topic.Board, "error", err.Error())
			}
			cancel()
		case <-ctx.Done():
			return nil
		}
	}
}

// take stores a message and tells its board.
func (f *Foreign) take(ctx context.Context, l letter) error {
	key := ingest.BoardKey{Tenant: l.topic.Tenant, Board: l.topic.Board}
	switch l.topic.Channel {
	case schema.ChanPresence:
		var p schema.Presence
		if schema.Decode(l.payload, &p) == nil && p.V > 0 && p.V <= schema.Version {
			return f.ingest.Presence(ctx, key, p)
		}
	case schema.ChanHello:
		h := new(schema.Hello)
		if schema.Decode(l.payload, h) == nil && ingest.CheckHello(key, h) == nil {
			return f.hello(ctx, l.client, key, h)
		}
	}
	ack, refused, err := f.ingest.Publish(ctx, key, l.raw, l.payload)
	if err != nil {
		return err
	}
	if refused {
		f.refused.Add(1)
		return nil
	}
	f.messages.Add(1)
	if ack == nil {
		return nil // a piece of a picture: its index record is acknowledged
	}
	return f.answer(l.client, key, schema.ChanAck, ack)
}

func (f *Foreign) hello(ctx context.Context, c mqtt.Client, key ingest.BoardKey, h *schema.Hello) error {
	if err := f.ingest.Hello(ctx, key, h); err != nil {
		return err
	}
	err := f.ingest.Presence(ctx, key, schema.Presence{V: schema.Version, Online: true, Boot: h.Now.Boot, Conn: h.Conn})
	if err != nil {
		return err
	}
	return f.answer(c, key, schema.ChanHelloAck, &schema.HelloAck{
		V: schema.Version, Conn: h.Conn, Mode: schema.AckFleet, Wall: time.Now().UnixMilli(), ReconnectMs: minWindow.Milliseconds(),
	})
}

// answer publishes to a board. An answer that is lost does no harm: the board asks
// or sends again.
func (f *Foreign) answer(c mqtt.Client, key ingest.BoardKey, ch schema.Channel, v any) error {
	b, err := schema.Encode(v)
	if err != nil {
		return err
	}
	c.Publish(schema.Topic{Tenant: key.Tenant, Board: key.Board, Channel: ch}.String(), 1, false, b)
	return nil
}
