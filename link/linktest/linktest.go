// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package linktest runs a real MQTT broker inside a test, over net.Pipe, so that
// whole outages run in simulated time. It answers hello as a fleet would and hands
// every record message to the test before its PUBACK.
//
// A [Broker]'s fields are set before the first [Broker.Dial]; its methods may be
// called at any time from any goroutine.
package linktest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"fulmar/schema"
)

// ErrCut is what dialing gives while the broker is cut off.
var ErrCut = errors.New("network is cut")

// Broker is one broker.
type Broker struct {
	mqtt.HookBase
	server *mqtt.Server
	once   sync.Once // of its end

	mu    sync.Mutex
	cut   bool
	conns map[*line]bool
	// wrap changes a board's end of each new connection; nil leaves it.
	wrap func(net.Conn) net.Conn

	// Hello is what a hello is answered with (V and Conn are filled in); nil
	// answers nothing.
	Hello *schema.HelloAck
	// Take is given each PUBLISH of a board before its PUBACK. An error
	// disconnects the board, and nothing is acknowledged.
	Take func(topic schema.Topic, payload []byte) error
	// Post is given each PUBLISH that Take let pass, in the place of who subscribed to
	// it. It delivers with [Broker.Publish], when it likes. It must not wait.
	Post func(topic schema.Topic, payload []byte)
	// Deny says which topics a board may not hear or write; nil: it may all.
	Deny func(topic string, write bool) bool
}

// New starts a broker that ends with the test.
func New(t testing.TB) *Broker {
	t.Helper()
	b := &Broker{conns: map[*line]bool{}, Hello: &schema.HelloAck{}}
	b.server = mqtt.New(&mqtt.Options{
		InlineClient: true, SysTopicResendInterval: 24 * 60 * 60, // seconds: nobody reads them here
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err := b.server.AddHook(b, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.server.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Kill)
	return b
}

// Kill ends the broker as a crash does: all connections break, and what it knew of
// sessions and subscriptions is gone. Another one takes its place.
func (b *Broker) Kill() {
	b.SetCut(true)
	b.once.Do(func() { _ = b.server.Close() })
}

// Listen opens the broker on a free port of the loopback too, for what needs a real
// socket, and gives its address.
func (b *Broker) Listen(t testing.TB) string {
	t.Helper()
	l := listeners.NewTCP(listeners.Config{ID: "loopback", Address: "127.0.0.1:0"})
	if err := b.server.AddListener(l); err != nil {
		t.Fatal(err)
	}
	go l.Serve(b.server.EstablishConnection)
	return l.Address()
}

// Dial connects a board.
func (b *Broker) Dial(context.Context) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut {
		return nil, ErrCut
	}
	board, broker := net.Pipe()
	l := newLine(board)
	b.conns[l] = true
	go func() {
		end := newFar(broker)
		defer end.Close() //nolint:errcheck // a pipe
		_ = b.server.EstablishConnection("pipe", end)
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.conns, l)
	}()
	if b.wrap != nil {
		return b.wrap(l), nil
	}
	return l, nil
}

// Wrap changes a board's end of each connection made from now on.
func (b *Broker) Wrap(f func(net.Conn) net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrap = f
}

// SetCut cuts the network (connections break, dialing fails) or mends it.
func (b *Broker) SetCut(cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = cut
	if cut {
		for l := range b.conns {
			_ = l.Close()
		}
	}
}

// Freeze makes all connections of now half open: nothing comes through any more,
// either way, and neither end is told. New connections are whole.
func (b *Broker) Freeze() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.conns {
		l.frozen.Store(true)
	}
}

// Publish sends a message to whoever subscribes.
func (b *Broker) Publish(topic string, payload []byte) error {
	return b.server.Publish(topic, payload, false, 1)
}

// ID names the hook.
func (*Broker) ID() string { return "linktest" }

// Provides tells the broker which calls this hook answers.
func (*Broker) Provides(p byte) bool {
	return bytes.Contains([]byte{mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPublish}, []byte{p})
}

// OnConnectAuthenticate lets everybody in.
func (*Broker) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// OnACLCheck allows what Deny does not name.
func (b *Broker) OnACLCheck(_ *mqtt.Client, topic string, write bool) bool {
	return b.Deny == nil || !b.Deny(topic, write)
}

// OnPublish answers hello and hands records to Take.
func (b *Broker) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	t, err := schema.ParseTopic(pk.TopicName)
	if err != nil || t.Channel == schema.ChanHelloAck || t.Channel == schema.ChanAck || cl.Net.Inline {
		return pk, nil // what the fleet says is not for the fleet, nor what was taken before
	}
	if t.Channel == schema.ChanHello && b.Hello != nil {
		var h schema.Hello
		if err := schema.Decode(pk.Payload, &h); err != nil {
			return pk, err
		}
		a := *b.Hello
		a.V, a.Conn = schema.Version, h.Conn
		payload, err := schema.Encode(&a)
		if err != nil {
			return pk, err
		}
		answer := t
		answer.Channel = schema.ChanHelloAck
		go func() { _ = b.Publish(answer.String(), payload) }() // not inside the hook: the broker holds its own locks there
	}
	if b.Take != nil {
		if err := b.Take(t, bytes.Clone(pk.Payload)); err != nil {
			cl.Stop(err)
			return pk, packets.ErrRejectPacket
		}
	}
	if b.Post != nil {
		b.Post(t, bytes.Clone(pk.Payload))
		return pk, packets.CodeSuccessIgnore // acknowledged, given to nobody
	}
	return pk, nil
}
