// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/internal/run"
	"fulmar/link/guard"
	"fulmar/link/internal/asks"
	"fulmar/link/internal/beside"
	"fulmar/link/internal/flights"
	"fulmar/link/internal/pace"
	"fulmar/schema"
)

// errInbound ends a generation whose reader did not keep up: under a clean
// session the broker forgets, and the fleet asks again.
var errInbound = errors.New("more messages came in than could be taken")

type inbound struct {
	topic   string
	payload []byte
}

// gen is one connection from CONNECT to its loss.
type gen struct {
	s      *Session
	number uint64 // of the connection, as told in hello and presence
	mode   schema.AckMode
	client mqtt.Client
	in     chan inbound

	once sync.Once
	lost chan struct{}
	why  error

	paced atomic.Bool   // the publisher waits for room on the line
	order atomic.Uint64 // of what was handed to the client, records or not

	mu   sync.Mutex
	conn *guard.Conn // nil until dialed
	pace *pace.Pace

	quiet chan struct{} // the publisher has ended
	asks  *asks.Asks    // for attestations, by the fleet
	post  *beside.Post  // what goes beside the records
	*flights.Window
}

// end marks the connection as lost; the first reason stands.
func (g *gen) end(why error) {
	g.once.Do(func() {
		g.why = why
		close(g.lost)
	})
}

// abandoned tells whether the connection is lost.
func (g *gen) abandoned() bool {
	select {
	case <-g.lost:
		return true
	default:
		return false
	}
}

// generation runs one connection. It returns how long records could flow and why
// it ended.
func (s *Session) generation(ctx context.Context) (up time.Duration, err error) {
	g := &gen{
		s: s, number: s.begin(), in: make(chan inbound, maxInbound), lost: make(chan struct{}),
		quiet: make(chan struct{}), asks: asks.New(),
		Window: flights.New(s.cfg.Window, s.cfg.WindowBytes), pace: pace.New(s.cfg.WindowBytes),
	}
	g.post = beside.New(g.lost)
	s.to(StateConnecting, nil)
	g.client = mqtt.NewClient(g.options(ctx))
	// Cut first: a write that is stuck ends, and the broker sends the last will.
	// Then the client's goroutines end too.
	defer func() { g.cut(); g.client.Disconnect(0) }()
	if err := flights.Await(ctx, g.client.Connect(), connectTimeout+time.Second, nil); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	if err := g.greet(ctx); err != nil {
		return 0, err
	}
	s.to(StateUp, nil)
	s.cfg.Log.Info("link up", "conn", g.number, "acknowledge", g.mode.String())
	began := time.Now()
	s.online(true)
	s.desk.Use(g.post, g.client)
	err = g.carry(ctx)
	s.desk.Use(nil, nil)
	s.online(false)
	up = time.Since(began)
	if ctx.Err() == nil {
		err = s.learn(g, err)
	}
	if ctx.Err() != nil && !g.abandoned() {
		g.goodbye(ctx)
	}
	return up, err
}

// carry sends and frees records until the connection is lost or the context ends.
func (g *gen) carry(ctx context.Context) error {
	group := run.New(ctx)
	part := func(name string, fn func(context.Context) error) {
		group.Go(name, func(ctx context.Context) error {
			err := fn(ctx)
			if err != nil {
				g.end(err) // the other part must not wait for what cannot come any more
			}
			return err
		})
	}
	part("acker", g.acknowledge)
	part("publisher", g.publish)
	part("beside", func(ctx context.Context) error {
		return g.s.desk.Run(ctx, g.post, g.client, &g.order, g.s.cfg.AckTimeout)
	})
	group.Go("connected", func(ctx context.Context) error { g.s.cfg.Connected(ctx, g.number); return nil })
	group.Go("attestations", func(ctx context.Context) error {
		g.asks.Run(ctx, g.quiet, g.s.cfg.Log, g.s.cfg.Attest, func(ctx context.Context, b []byte) error { return g.say(ctx, schema.ChanAttest, b, false) })
		return nil
	})
	group.Go("loss", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-g.lost:
			return g.why
		}
	})
	<-group.Context().Done()
	if ctx.Err() == nil {
		return group.Wait(lossGrace)
	}
	return group.Wait(drainTimeout + time.Second)
}

func (g *gen) options(ctx context.Context) *mqtt.ClientOptions {
	c := &g.s.cfg
	o := mqtt.NewClientOptions().AddBroker("tcp://fleet").SetClientID(c.ClientID).SetProtocolVersion(4).
		SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false).
		SetStore(guard.NoStore{}).SetOrderMatters(true).SetWriteTimeout(writeTimeout).
		SetKeepAlive(c.KeepAlive).SetPingTimeout(pingTimeout).SetConnectTimeout(connectTimeout).
		SetUsername(c.Username).SetPassword(c.Password).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return g.dial(ctx) }).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { g.end(fmt.Errorf("connection lost: %w", err)) }).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { g.receive(m) })
	o.SetBinaryWill(g.topic(schema.ChanPresence), g.presence(false), 1, g.retain())
	return o
}

// dial opens the connection, within its time.
func (g *gen) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := g.s.cfg.Dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := guard.New(raw, guard.Config{
		Filters: numFilters + len(g.s.cfg.Filters), MaxPacket: maxPacket,
		Asked: func(size int) { g.pace.Sent(size, time.Now()) },
		Answered: func(took time.Duration, size int) {
			g.pace.Answered(took, size, time.Now())
			if g.paced.Swap(false) {
				flights.Poke(g.Freed) // the line has room, whoever's word frees the window
			}
		},
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn = conn
	return conn, nil
}

// cut closes the connection, whoever reads or writes it.
func (g *gen) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conn != nil {
		_ = g.conn.Close()
	}
}

// hungUp tells whether the broker ended the connection.
func (g *gen) hungUp() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conn != nil && g.conn.HungUp()
}

func (g *gen) topic(c schema.Channel) string {
	return schema.Topic{Tenant: g.s.cfg.Tenant, Board: g.s.cfg.Board, Channel: c}.String()
}

// retain tells whether presence is kept by the broker: on a foreign one, so that
// who comes later knows; our gateway keeps it in its database.
func (g *gen) retain() bool { return g.s.cfg.Mode != nil && *g.s.cfg.Mode != schema.AckPuback }

func (g *gen) presence(online bool) []byte {
	b, err := schema.Encode(&schema.Presence{V: schema.Version, Online: online, Boot: g.s.cfg.Clock.Boot(), Conn: g.number})
	if err != nil {
		panic(err) // four fixed fields: only a broken build gets here
	}
	return b
}

// greet subscribes, says hello and waits for the answer.
func (g *gen) greet(ctx context.Context) error {
	must := []schema.Channel{schema.ChanHelloAck, schema.ChanAck}
	if err := g.s.desk.Subscribe(ctx, g.client, must, helloTimeout, g.lost); err != nil {
		return fmt.Errorf("subscribe: %w", g.reason(ctx, err))
	}
	c, cursors := &g.s.cfg, g.s.out.Cursors()
	g.s.claims.Met(cursors)
	hello, err := schema.Encode(&schema.Hello{
		V: schema.Version, Board: c.Board, Release: c.Release, Conn: g.number, Now: c.Clock.Now(), Cursors: cursors, Facts: c.Facts, Keys: c.Keys(),
	})
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if err := g.say(ctx, schema.ChanHello, hello, false); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if err := g.awaitHello(ctx); err != nil {
		return err
	}
	if err := g.say(ctx, schema.ChanPresence, g.presence(true), g.retain()); err != nil {
		return fmt.Errorf("presence: %w", err)
	}
	return nil
}

// say publishes and waits for the PUBACK.
func (g *gen) say(ctx context.Context, c schema.Channel, payload []byte, retain bool) error {
	if err := flights.Await(ctx, g.client.Publish(g.topic(c), 1, retain, payload), helloTimeout, g.lost); err != nil {
		return g.reason(ctx, err)
	}
	return nil
}

// awaitHello waits for hello/ack. With the mode fixed by the config there may be
// no fleet at all, so its silence is no failure then.
func (g *gen) awaitHello(ctx context.Context) error {
	patience := helloTimeout
	fixed := g.s.cfg.Mode
	if fixed != nil {
		g.mode, patience = *fixed, helloPatience
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.lost:
			return g.why
		case <-timer.C:
			if fixed != nil {
				return nil
			}
			return errors.New("hello was not answered: the broker is there, the fleet is not")
		case m := <-g.in:
			if m.topic != g.topic(schema.ChanHelloAck) {
				continue
			}
			var a schema.HelloAck
			if err := schema.Decode(m.payload, &a); err != nil {
				g.s.cfg.Log.Warn("answer to hello cannot be read", "err", err)
				continue
			}
			if a.Conn != g.number {
				continue // of an older connection
			}
			g.s.heard(&a)
			g.pace.SetRate(a.Rate, time.Now())
			g.asks.Note(a.Attest)
			if fixed == nil {
				g.mode = a.Mode
			}
			return away(&a)
		}
	}
}

// goodbye tells that the board goes in order. Its bound holds where the client is
// stuck in a write too.
func (g *gen) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), byeTimeout)
	defer cancel()
	group := run.New(ctx)
	group.Go("goodbye", func(ctx context.Context) error {
		if g.say(ctx, schema.ChanPresence, g.presence(false), g.retain()) == nil {
			g.client.Disconnect(uint(byeTimeout / time.Millisecond))
		}
		return nil
	})
	_ = group.Wait(0) // the board is gone either way: the broker has the last will
}

// reason gives why the connection was lost, where that is why a token failed: the
// client fails the tokens first and says why right after.
func (g *gen) reason(ctx context.Context, err error) error {
	select {
	case <-g.lost:
		return g.why
	case <-ctx.Done():
		return err
	case <-time.After(reasonTimeout):
		return err
	}
}
