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
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"fulmar/internal/run"
	"fulmar/schema"
)

// errInbound ends a generation whose reader did not keep up: under a clean
// session the broker forgets, and the fleet asks again.
var errInbound = errors.New("more messages came in than could be taken")

// noStore is paho's store turned off: the spool is the only truth.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}

type inbound struct {
	topic   string
	payload []byte
}

// gen is one connection from CONNECT to its loss.
type gen struct {
	s      *Session
	number uint64
	// conn names the connection to the fleet: it rises within a boot, also over
	// restarts of the program, so that a stale last will is known as such.
	conn   uint64
	mode   schema.AckMode
	client mqtt.Client
	in     chan inbound

	once sync.Once
	lost chan struct{}
	why  error

	flights chan *flight // in the order of sending; its capacity is the window
	mu      sync.Mutex
	open    []*flight // the same, for acknowledgements of the fleet
	bytes   int
	freed   chan struct{} // cap 1
}

// end marks the connection as lost; the first reason stands.
func (g *gen) end(why error) {
	g.once.Do(func() {
		g.why = why
		close(g.lost)
	})
}

// generation runs one connection and returns why it ended.
func (s *Session) generation(ctx context.Context) error {
	g := &gen{
		s: s, in: make(chan inbound, maxInbound), lost: make(chan struct{}),
		flights: make(chan *flight, s.cfg.Window), freed: make(chan struct{}, 1),
	}
	g.conn = uint64(max(s.cfg.Clock.Now().Mono, 0))
	s.count(func(st *Status) { st.Generation++; g.number = st.Generation })
	s.to(StateConnecting, nil)
	g.client = mqtt.NewClient(g.options(ctx))
	if err := wait(ctx, g.client.Connect(), connectTimeout+time.Second, nil); err != nil {
		g.client.Disconnect(0)
		return fmt.Errorf("connect: %w", err)
	}
	defer g.client.Disconnect(0)
	if err := g.greet(ctx); err != nil {
		return err
	}
	s.to(StateUp, nil)
	s.cfg.Log.Info("link up", "generation", g.number, "acknowledge", g.mode.String())
	group := run.New(ctx)
	group.Go("acker", g.acknowledge)
	group.Go("publisher", g.publish)
	group.Go("loss", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-g.lost:
			return g.why
		}
	})
	err := group.Wait(drainTimeout + time.Second)
	if ctx.Err() != nil {
		g.goodbye()
	}
	return err
}

func (g *gen) options(ctx context.Context) *mqtt.ClientOptions {
	c := &g.s.cfg
	o := mqtt.NewClientOptions().AddBroker("tcp://fleet").SetClientID(c.ClientID).SetProtocolVersion(4).
		SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false).
		SetStore(noStore{}).SetOrderMatters(true).SetWriteTimeout(writeTimeout).
		SetKeepAlive(c.KeepAlive).SetPingTimeout(pingTimeout).SetConnectTimeout(connectTimeout).
		SetUsername(c.Username).SetPassword(c.Password).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
			conn, err := c.Dial(ctx)
			if err != nil {
				return nil, err
			}
			return guard(conn), nil
		}).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { g.end(fmt.Errorf("connection lost: %w", err)) }).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			select {
			case g.in <- inbound{m.Topic(), m.Payload()}:
			default:
				g.end(errInbound)
			}
		})
	o.SetBinaryWill(g.topic(schema.ChanPresence), g.presence(false), 1, false)
	return o
}

func (g *gen) topic(c schema.Channel) string {
	return schema.Topic{Tenant: g.s.cfg.Tenant, Board: g.s.cfg.Board, Channel: c}.String()
}

func (g *gen) presence(online bool) []byte {
	b, err := schema.Encode(&schema.Presence{V: schema.Version, Online: online, Boot: g.s.cfg.Clock.Boot(), Conn: g.conn})
	if err != nil {
		panic(err) // four fixed fields: only a broken build gets here
	}
	return b
}

// greet subscribes, says hello and waits for the answer.
func (g *gen) greet(ctx context.Context) error {
	c := &g.s.cfg
	filters := map[string]byte{g.topic(schema.ChanHelloAck): 1, g.topic(schema.ChanAck): 1}
	sub, ok := g.client.SubscribeMultiple(filters, nil).(*mqtt.SubscribeToken)
	if err := wait(ctx, sub, helloTimeout, g.lost); err != nil {
		return fmt.Errorf("subscribe: %w", g.reason(err))
	}
	if ok {
		for topic, qos := range sub.Result() {
			if qos == 0x80 {
				return fmt.Errorf("subscribe: the broker refused %s; its access rules must let this board read it", topic)
			}
		}
	}
	hello, err := schema.Encode(&schema.Hello{
		V: schema.Version, Board: c.Board, Release: c.Release, Conn: g.conn,
		Now: c.Clock.Now(), Cursors: g.s.out.Cursors(), Facts: c.Facts,
	})
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if err := wait(ctx, g.client.Publish(g.topic(schema.ChanHello), 1, false, hello), helloTimeout, g.lost); err != nil {
		return fmt.Errorf("hello: %w", g.reason(err))
	}
	if err := g.awaitHello(ctx); err != nil {
		return err
	}
	if err := wait(ctx, g.client.Publish(g.topic(schema.ChanPresence), 1, false, g.presence(true)), helloTimeout, g.lost); err != nil {
		return fmt.Errorf("presence: %w", g.reason(err))
	}
	return nil
}

// awaitHello waits for hello/ack. With the mode fixed by the config there may be
// no fleet at all, so its silence is no failure then.
func (g *gen) awaitHello(ctx context.Context) error {
	patience := helloTimeout
	if g.s.cfg.Mode != nil {
		g.mode, patience = *g.s.cfg.Mode, helloPatience
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
			if g.s.cfg.Mode != nil {
				return nil
			}
			return errors.New("hello was not answered: the broker is there, the fleet is not")
		case m := <-g.in:
			var a schema.HelloAck
			if m.topic != g.topic(schema.ChanHelloAck) || schema.Decode(m.payload, &a) != nil || a.Conn != g.conn {
				continue // of an older connection, or not for now
			}
			g.s.heard(&a)
			if g.mode = a.Mode; g.s.cfg.Mode != nil {
				g.mode = *g.s.cfg.Mode
			}
			if a.RetryAfterMs > 0 {
				return fmt.Errorf("the fleet asks to come back in %v", time.Duration(a.RetryAfterMs)*time.Millisecond)
			}
			return nil
		}
	}
}

// goodbye tells that the board goes in order.
func (g *gen) goodbye() {
	t := g.client.Publish(g.topic(schema.ChanPresence), 1, false, g.presence(false))
	t.WaitTimeout(byeTimeout)
}

func (g *gen) reason(err error) error {
	select {
	case <-g.lost:
		return g.why
	default:
		return err
	}
}

// wait waits for a token with a bound.
func wait(ctx context.Context, t mqtt.Token, limit time.Duration, lost <-chan struct{}) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return ctx.Err()
	case <-lost:
		return errors.New("connection lost")
	case <-timer.C:
		return fmt.Errorf("no answer within %v", limit)
	}
}
