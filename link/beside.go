// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/internal/beside"
	"fulmar/schema"
)

var (
	// ErrDown: there is no connection to the fleet, or it ended before the PUBACK. What
	// was to be sent may have arrived all the same.
	ErrDown = beside.ErrDown
	// ErrNotTaken: the broker does not take this message from this board: it is an older
	// fleet that does not know the channel, or one that ended three connections at it.
	ErrNotTaken = beside.ErrNotTaken
)

// Down is a message of the fleet on one of [Config.Filters].
type Down struct {
	Channel schema.Channel
	Tail    string // the command's id on schema.ChanCommand; the object on schema.ChanPiece, where it came on that one's topic
	Payload []byte
}

// Send publishes beside the records, with QoS 1, on tw/r, c/{id}/r (tail is the id), ota/s
// or ota/want. Nil comes only after the PUBACK in the connection that is up; [ErrDown] at once
// where none is, and where it ended before; [ErrNotTaken] where it must not be tried. At
// most eight are in flight, in the order of the calls; more wait, but never for records.
func (s *Session) Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	return s.desk.Send(ctx, ch, tail, payload)
}

// Hear has the connection that is up hear the topic of an object, see schema.ObjectTopic;
// tree is its name in hex. What comes there is given to [Config.Inbox] as schema.ChanPiece.
// lost is closed when the connection has ended, and with it the hearing. [ErrDown] where
// there is none; [ErrNotTaken] where the broker does not let this board hear it. At most two
// are heard at a time.
func (s *Session) Hear(ctx context.Context, tree string) (lost <-chan struct{}, err error) {
	return s.desk.Hear(ctx, tree)
}

// Leave ends what [Session.Hear] began; nil where nothing is heard.
func (s *Session) Leave(ctx context.Context, tree string) error { return s.desk.Leave(ctx, tree) }

// receive takes a message in the client's only reader, so it does not wait. The fleet's
// word on the time goes out before a command whose expiry is judged by it.
func (g *gen) receive(m mqtt.Message) {
	in, c := inbound{topic: m.Topic(), payload: m.Payload()}, &g.s.cfg
	if g.s.desk.Take(in.topic, g.abandoned, func(t schema.Topic) { c.Inbox(Down{t.Channel, t.Tail, in.payload}) }) {
		return
	}
	if in.topic == g.topic(schema.ChanHelloAck) {
		var a schema.HelloAck
		if schema.Decode(in.payload, &a) == nil && a.Conn == g.number {
			c.Heard(a)
		}
	}
	select {
	case g.in <- in:
	default:
		g.end(errInbound)
	}
}
