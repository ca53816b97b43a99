// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/internal/beside"
	"fulmar/schema"
)

var (
	// ErrDown: there is no connection to the fleet, or it ended before the PUBACK. What
	// was to be sent may have arrived all the same.
	ErrDown = errors.New("there is no connection to the fleet")
	// ErrNotTaken: the broker does not take this message from this board: it is an older
	// fleet that does not know the channel, or one that ended three connections at it.
	ErrNotTaken = errors.New("the broker does not take it")
)

// Down is a message of the fleet on one of [Config.Filters].
type Down struct {
	Channel schema.Channel
	Tail    string // the command's id on schema.ChanCommand
	Payload []byte
}

// maxFilters bounds [Config.Filters]: our gateway grants a board eight in all.
const maxFilters = 6

// answers gives the channel on which the fleet answers what a board sends beside its
// records; false for channels on which nothing is sent so. A fleet that does not let a
// board hear the one does not take the other, and ends the connection at it.
func answers(up schema.Channel) (down schema.Channel, ok bool) {
	switch up {
	case schema.ChanTwinUp:
		return schema.ChanTwinDown, true
	case schema.ChanResult:
		return schema.ChanCommand, true
	case schema.ChanOTAState:
		return schema.ChanAssign, true
	}
	return "", false
}

// checkFilters checks what the board wants to hear.
func (c *Config) checkFilters() error {
	if len(c.Filters) > maxFilters {
		return fmt.Errorf("link with %d filters, at most %d", len(c.Filters), maxFilters)
	}
	if len(c.Filters) > 0 && c.Inbox == nil {
		return errors.New("link with filters and nobody to take what comes")
	}
	for i, f := range c.Filters {
		known := []schema.Channel{schema.ChanTwinDown, schema.ChanCommand, schema.ChanKeys, schema.ChanAssign}
		if !slices.Contains(known, f) || slices.Contains(c.Filters[:i], f) {
			return fmt.Errorf("link with the filter %q, wants each of %q at most once", f, known)
		}
	}
	return nil
}

// Send publishes a message beside the records, with QoS 1, on tw/r, c/{id}/r (tail is
// the id) or ota/s. It gives nil only after the PUBACK in the connection that is up;
// [ErrDown] at once where none is, and where that ended before; [ErrNotTaken] where it
// must not be tried. At most eight are in flight, in the order of the calls; more wait,
// but never for the records. It may be called from any goroutine, and keeps the payload
// until it ends.
func (s *Session) Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	topic := schema.Topic{Tenant: s.cfg.Tenant, Board: s.cfg.Board, Channel: ch, Tail: tail}
	answer, ok := answers(ch)
	if t, err := schema.ParseTopic(topic.String()); !ok || err != nil || t != topic {
		return fmt.Errorf("send on %q %q: nothing is sent beside the records there", ch, tail)
	}
	if len(payload) == 0 || len(payload) > schema.MaxPayload {
		return fmt.Errorf("send %d bytes on %s, wants 1 to %d", len(payload), topic, schema.MaxPayload)
	}
	s.mu.Lock()
	g := s.up
	s.mu.Unlock()
	if g == nil {
		return ErrDown
	}
	key := beside.Key{Channel: ch, Tail: tail}
	if slices.Contains(g.denied, answer) {
		return fmt.Errorf("send on %s: %w: it does not let this board hear the answers", topic, ErrNotTaken)
	}
	if left := s.blame.Held(key, time.Now()); left > 0 {
		return fmt.Errorf("send on %s: %w: it ended three connections at it; tried again in %v", topic, ErrNotTaken, left.Round(time.Second))
	}
	err := g.post.Send(ctx, key, topic.String(), payload)
	if errors.Is(err, beside.ErrLost) {
		return fmt.Errorf("send on %s: %w: %w", topic, ErrDown, err)
	}
	return err
}

// goesUp lets [Session.Send] use a connection, or none.
func (s *Session) goesUp(g *gen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = g
}

// postAside sends what goes beside the records.
func (g *gen) postAside(ctx context.Context) error {
	return g.post.Run(ctx, beside.Config{
		Publish: func(topic string, payload []byte) mqtt.Token { return g.client.Publish(topic, 1, false, payload) },
		Order:   func() uint64 { return g.order.Add(1) },
		Acked:   g.s.blame.Acked,
		Timeout: g.s.cfg.AckTimeout,
	})
}

// tellConnected calls [Config.Connected] with a context that ends with the connection.
func (g *gen) tellConnected(ctx context.Context) error {
	if g.s.cfg.Connected != nil {
		g.s.cfg.Connected(ctx, g.number)
	}
	return nil
}

// receive takes a message in the client's only reader, so it does not wait. What is on
// one of the filters goes to the inbox from here, and so does the fleet's word on the
// time before it: who checks a command asks when it expires.
func (g *gen) receive(m mqtt.Message) {
	in := inbound{topic: m.Topic(), payload: m.Payload()}
	t, err := schema.ParseTopic(in.topic)
	mine := err == nil && t.Tenant == g.s.cfg.Tenant && t.Board == g.s.cfg.Board
	if mine && slices.Contains(g.s.cfg.Filters, t.Channel) {
		g.s.inbox.Lock() // a reader of the last connection may not have ended
		defer g.s.inbox.Unlock()
		if !g.abandoned() {
			g.s.cfg.Inbox(Down{Channel: t.Channel, Tail: t.Tail, Payload: in.payload})
		}
		return
	}
	if mine && t.Channel == schema.ChanHelloAck && g.s.cfg.Heard != nil {
		var a schema.HelloAck
		if schema.Decode(in.payload, &a) == nil && a.Conn == g.number {
			g.s.cfg.Heard(a)
		}
	}
	select {
	case g.in <- in:
	default:
		g.end(errInbound)
	}
}

// blameless tells whether a broker that hung up did so at a message beside the records:
// at the one that was handed over before every record without a PUBACK. It answers in
// the order in which it was sent to.
func (s *Session) blameless(g *gen) bool {
	key, order, ok := g.post.Oldest()
	if !ok {
		return false
	}
	if first, any := g.First(); any && first < order {
		return false
	}
	if g.hungUp() && s.blame.Ended(key, time.Now()) {
		text := fmt.Sprintf("the broker ended three connections at the same message on %s; it is held back for a while, so that records flow", key.Channel)
		s.cfg.Log.Error(text, "tail", key.Tail)
		s.report(schema.Report{Subject: "link/beside", State: "refused", Severity: schema.SeverityWarn, Text: text})
	}
	return true
}
