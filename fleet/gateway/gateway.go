// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"fulmar/fleet/ca"
	"fulmar/fleet/gateway/pieces"
	"fulmar/fleet/ingest"
	"fulmar/internal/run"
	"fulmar/schema"
	"fulmar/twin/wire"
)

const (
	// packetOverhead is what an MQTT PUBLISH adds to its payload: header, topic, id.
	packetOverhead = 1 << 10
	// bufferBytes is each connection's read and write buffer; larger ones cost
	// memory for each of thousands of idle boards and gain nothing measurable.
	bufferBytes = 512
	// writesPending bounds the messages waiting for one slow board.
	writesPending = 128
	// maxInflight bounds messages to one board that it has not acknowledged.
	maxInflight = 64
	// maxClients bounds connections; 50,000 is what one server is meant for.
	maxClients = 50_000
	// newerAway is how long a board stays away that speaks a newer wire version: long
	// enough that a fleet of them costs little, short enough that nobody waits for
	// their records once this program is updated.
	newerAway = 5 * time.Minute
	// ingestTimeout is how long a board's message may wait for its commit. Longer
	// than any healthy disk needs; then the connection is closed.
	ingestTimeout = 30 * time.Second
	// stopTimeout bounds the wait for connections to end.
	stopTimeout = 3 * time.Second
)

// Ingester makes messages durable.
type Ingester interface {
	Publish(ctx context.Context, key ingest.BoardKey, topic string, payload []byte) (ack *schema.Ack, refused bool, err error)
	Hello(ctx context.Context, key ingest.BoardKey, h *schema.Hello) error
	Presence(ctx context.Context, key ingest.BoardKey, p schema.Presence) error
	// Newer notes that a board speaks a newer wire version; its error is ingest.ErrNewer.
	Newer(ctx context.Context, key ingest.BoardKey, version uint8) error
}

// Admitter knows which certificates are good.
type Admitter interface {
	Admit(ctx context.Context, id ca.Identity) (bool, error)
}

// Config shapes the gateway.
type Config struct {
	Listener net.Listener // TCP; closed by Run
	TLS      *tls.Config  // with ClientAuth RequireAndVerifyClientCert
	// Rate bounds what each board sends beside alarms, in bytes a second; 0 no bound.
	Rate int64
	// Attest asks boards what they run; nil asks none.
	Attest Attester
	// Updates takes what boards say of their updates; nil: nobody does.
	Updates Updater
	// Twins and Commands take what boards say of theirs; nil: nobody does, and what they
	// say is acknowledged and forgotten.
	Twins    Twins
	Commands Commands
	// Objects gives boards the objects of their updates; nil: nobody does, and what they
	// want is acknowledged and forgotten.
	Objects pieces.Objects
	// Keys are the key sets that boards of this fleet go by; nil: there are none.
	Keys Keys
	// Hello is told of each hello before it is answered; nil: nobody is.
	Hello func(key ingest.BoardKey, h *schema.Hello)
}

// Stats are counters since the start.
type Stats struct {
	Connected int64  // boards connected now
	Accepted  uint64 // connections that became sessions
	Denied    uint64 // handshakes and connects turned away
	Refused   uint64 // payloads that can never be understood
	Failed    uint64 // messages not stored: connection closed without PUBACK
	TakenOver uint64 // sessions ended by a newer one of the same board
	Shut      uint64 // sessions ended because their certificate is good no longer
	SentAway  uint64 // hellos answered with a time to come back
	Newer     uint64 // words of a newer wire version: not taken, their boards sent away
}

// Gateway is the broker for boards.
type Gateway struct {
	cfg    Config
	ingest Ingester
	admit  Admitter
	log    *slog.Logger

	server *mqtt.Server
	pieces *pieces.Hall
	ctx    context.Context // of Run; hooks have none of their own

	door *door
	came *arrivals

	mu     sync.Mutex
	census struct {
		boards int
		at     time.Time
	}
	sessions map[ingest.BoardKey]*session  // newest of each board
	conns    map[net.Conn]*session         // all, those taken over too
	warned   map[ingest.BoardKey]time.Time // last log line about a bad payload

	serial atomic.Uint64 // of connections
	mark   atomic.Int64  // how far shut boards were looked at
	rate   atomic.Int64  // bytes a second that each board may send; 0 no bound
	away   atomic.Int64  // newerAway; less in tests
	n      struct{ connected, accepted, denied, refused, failed, takenOver, shut, sentAway, newer atomic.Int64 }
}

// session is one connection of a board.
type session struct {
	key    ingest.BoardKey
	id     ca.Identity // of its certificate
	client *mqtt.Client
	// boot and conn are those of the board's own word (st or hello), for its will.
	boot, conn atomic.Uint64
	spoke      atomic.Bool
	rate       meter      // of its messages; owned by the connection's goroutine
	newer      bool       // it speaks a newer wire version; owned like rate
	reply      *wire.Down // to what is acknowledged next; owned like rate
}

// New makes a gateway.
func New(cfg Config, in Ingester, admit Admitter, log *slog.Logger) (*Gateway, error) {
	if cfg.TLS == nil || cfg.TLS.ClientAuth != tls.RequireAndVerifyClientCert || cfg.TLS.MinVersion < tls.VersionTLS13 {
		return nil, fmt.Errorf("gateway: wants TLS 1.3 with verified client certificates")
	}
	g := &Gateway{
		cfg: cfg, ingest: in, admit: admit, log: log, door: newDoor(), came: newArrivals(),
		sessions: map[ingest.BoardKey]*session{}, conns: map[net.Conn]*session{}, warned: map[ingest.BoardKey]time.Time{},
	}
	g.rate.Store(max(cfg.Rate, 0))
	g.away.Store(int64(newerAway))
	caps := mqtt.NewDefaultServerCapabilities()
	caps.MaximumClients = maxClients
	caps.MaximumClientWritesPending = writesPending
	caps.MaximumSessionExpiryInterval = 0
	caps.MaximumPacketSize = schema.MaxPayload + packetOverhead
	caps.MaximumInflight = maxInflight
	caps.TopicAliasMaximum = 0
	caps.SharedSubAvailable = 0
	caps.MinimumProtocolVersion = 4
	caps.MaximumQos = 1
	// Retained messages stay "available" because a refusal would turn a board with
	// a retained will away at the door; OnPublish and OnWill see that none is kept.
	g.server = mqtt.New(&mqtt.Options{
		Capabilities:             caps,
		ClientNetReadBufferSize:  bufferBytes,
		ClientNetWriteBufferSize: bufferBytes,
		Logger:                   slog.New(slog.DiscardHandler), // it logs payloads; we say what matters ourselves
		SysTopicResendInterval:   3600,                          // nobody may read $SYS
		InlineClient:             true,
	})
	g.pieces = pieces.New(cfg.Objects)
	if err := errors.Join(g.server.AddHook(&hook{g: g}, nil), g.server.AddHook(g.pieces, nil)); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return g, nil
}

// Stats tells the counters.
func (g *Gateway) Stats() Stats {
	return Stats{
		Connected: g.n.connected.Load(), Accepted: uint64(g.n.accepted.Load()), Denied: uint64(g.n.denied.Load()),
		Refused: uint64(g.n.refused.Load()), Failed: uint64(g.n.failed.Load()), TakenOver: uint64(g.n.takenOver.Load()), Shut: uint64(g.n.shut.Load()),
		SentAway: uint64(g.n.sentAway.Load()), Newer: uint64(g.n.newer.Load()),
	}
}

// Run serves boards until the context ends, then closes their connections.
func (g *Gateway) Run(ctx context.Context) error {
	// Hooks go on until the last connection has ended, then they are cut off.
	hooks, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	g.ctx = hooks
	watch, err := g.watcher(ctx)
	if err != nil {
		return fmt.Errorf("serve boards: %w", err)
	}
	l := newListener(g.cfg.Listener, g.cfg.TLS, func() { g.n.denied.Add(1) }, g.ended)
	if err := g.server.AddListener(l); err != nil {
		return fmt.Errorf("serve boards: %w", err)
	}
	if err := g.server.Serve(); err != nil {
		return fmt.Errorf("serve boards: %w", err)
	}
	others := run.New(ctx)
	others.Go("arrivals", g.tellArrivals)
	watch() // until the context ends
	stop := time.AfterFunc(stopTimeout, cancel)
	defer stop.Stop()
	l.shut()
	return errors.Join(g.server.Close(), others.Wait(arrivalsGrace), g.pieces.Close(arrivalsGrace))
}

// SetRate bounds what each board sends beside alarms from now on, in bytes a second;
// 0 lifts the bound. The boards connected are told.
func (g *Gateway) SetRate(rate int64) {
	g.rate.Store(max(rate, 0))
	for _, s := range g.spoken() {
		if err := g.answer(s.key, s.conn.Load(), 0); err != nil {
			g.log.Warn("board not told of its rate", "board", s.key.Board, "error", err.Error())
		}
	}
}

// spoken lists the sessions whose board has said which connection it is.
func (g *Gateway) spoken() (out []*session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.sessions {
		if s.spoke.Load() {
			out = append(out, s)
		}
	}
	return out
}

// answer tells a board the rules that hold here, and asks it what is to be asked.
func (g *Gateway) answer(key ingest.BoardKey, conn uint64, away time.Duration) error {
	if away > 0 {
		return g.tell(key, conn, away, nil)
	}
	return g.tell(key, conn, 0, g.question(key, conn))
}

func (g *Gateway) tell(key ingest.BoardKey, conn uint64, away time.Duration, nonce []byte) error {
	b, err := schema.Encode(&schema.HelloAck{
		V: schema.Version, Conn: conn, Mode: schema.AckPuback, Wall: time.Now().UnixMilli(),
		ReconnectMs: g.window().Milliseconds(), RetryAfterMs: away.Milliseconds(), Rate: g.rate.Load(), Attest: nonce,
	})
	if err != nil {
		return err
	}
	topic := schema.Topic{Tenant: key.Tenant, Board: key.Board, Channel: schema.ChanHelloAck}
	return g.server.Publish(topic.String(), b, false, 1)
}

// cutOff closes a connection at the socket: nothing is written first, so that a
// half-open one does not hold the caller up.
func cutOff(cl *mqtt.Client) {
	if c, ok := cl.Net.Conn.(interface{ NetConn() net.Conn }); ok {
		_ = c.NetConn().Close()
	}
	cl.Stop(errCutOff)
}
