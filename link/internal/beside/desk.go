// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package beside

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/internal/flights"
	"fulmar/schema"
)

// The errors of package link, see there.
var (
	ErrDown     = errors.New("there is no connection to the fleet")
	ErrNotTaken = errors.New("the broker does not take it")
)

// MaxFilters bounds what a board hears beside hello/ack and ack: our gateway grants it
// eight subscriptions in all.
const MaxFilters = 6

// Desk is what a session sends and hears beside its records, over all its connections.
// Send may be called from any goroutine.
type Desk struct {
	Tenant, Board string
	Filters       []schema.Channel
	Log           *slog.Logger
	Report        func(schema.Report)

	blame  Blame
	mu     sync.Mutex
	post   *Post // of the connection that is up; nil where none is
	client mqtt.Client
	heard  map[string]bool // objects whose topics the connection hears
	denied []schema.Channel
	inbox  sync.Mutex
}

// Check checks the filters.
func (d *Desk) Check() error {
	if len(d.Filters) > MaxFilters {
		return fmt.Errorf("link with %d filters, at most %d", len(d.Filters), MaxFilters)
	}
	for i, f := range d.Filters {
		known := []schema.Channel{schema.ChanTwinDown, schema.ChanCommand, schema.ChanKeys, schema.ChanAssign, schema.ChanPiece}
		if !slices.Contains(known, f) || slices.Contains(d.Filters[:i], f) {
			return fmt.Errorf("link with the filter %q, wants each of %q at most once", f, known)
		}
	}
	return nil
}

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
	case schema.ChanWant:
		return schema.ChanPiece, true
	}
	return "", false
}

// Send is link.Session.Send.
func (d *Desk) Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error {
	topic := schema.Topic{Tenant: d.Tenant, Board: d.Board, Channel: ch, Tail: tail}
	answer, ok := answers(ch)
	if t, err := schema.ParseTopic(topic.String()); !ok || err != nil || t != topic {
		return fmt.Errorf("send on %q %q: nothing is sent beside the records there", ch, tail)
	}
	if len(payload) == 0 || len(payload) > schema.MaxPayload {
		return fmt.Errorf("send %d bytes on %s, wants 1 to %d", len(payload), topic, schema.MaxPayload)
	}
	d.mu.Lock()
	post, denied := d.post, slices.Contains(d.denied, answer)
	d.mu.Unlock()
	if post == nil {
		return ErrDown
	}
	key := Key{Channel: ch, Tail: tail}
	if denied {
		return fmt.Errorf("send on %s: %w: it does not let this board hear the answers", topic, ErrNotTaken)
	}
	if left := d.blame.Held(key, time.Now()); left > 0 {
		return fmt.Errorf("send on %s: %w: it ended three connections at it; tried again in %v", topic, ErrNotTaken, left.Round(time.Second))
	}
	err := post.Send(ctx, key, topic.String(), payload)
	if errors.Is(err, ErrLost) {
		return fmt.Errorf("send on %s: %w: %w", topic, ErrDown, err)
	}
	return err
}

// Use has messages go by a connection and its client; nil: by none.
func (d *Desk) Use(p *Post, client mqtt.Client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.post, d.client, d.heard = p, client, nil // a clean session hears no object
}

// Run sends by a connection's client until that is over; order numbers all that is
// handed to the client. See [Post.Run].
func (d *Desk) Run(ctx context.Context, p *Post, client mqtt.Client, order *atomic.Uint64, timeout time.Duration) error {
	return p.Run(ctx, Config{
		Publish: func(topic string, payload []byte) mqtt.Token { return client.Publish(topic, 1, false, payload) },
		Order:   func() uint64 { return order.Add(1) },
		Acked:   d.blame.Acked,
		Timeout: timeout,
	})
}

// Take gives a message on one of the filters, or on the topic of an object that is heard
// (as schema.ChanPiece with the object as its tail), to fn, one at a time, unless its
// connection is over; false for other messages.
func (d *Desk) Take(topic string, over func() bool, fn func(schema.Topic)) bool {
	t, err := schema.ParseTopic(topic)
	if tree, ok := d.object(topic); ok {
		t = schema.Topic{Tenant: d.Tenant, Board: d.Board, Channel: schema.ChanPiece, Tail: tree}
	} else if err != nil || t.Tenant != d.Tenant || t.Board != d.Board || !slices.Contains(d.Filters, t.Channel) {
		return false
	}
	d.inbox.Lock() // a reader of the last connection may not have ended
	defer d.inbox.Unlock()
	if !over() {
		fn(t)
	}
	return true
}

// Blamed tells whether a connection that is over ended at a message beside the records:
// at the one that was handed over before the first record without a PUBACK (any: there
// is one), as a broker answers in the order in which it is sent to.
func (d *Desk) Blamed(p *Post, first uint64, any, hungUp bool) bool {
	key, order, ok := p.Oldest()
	if !ok || any && first < order {
		return false
	}
	if hungUp && d.blame.Ended(key, time.Now()) {
		text := fmt.Sprintf("the broker ended three connections at the same message on %s; it is held back for a while, so that records flow", key.Channel)
		d.Log.Error(text, "tail", key.Tail)
		d.Report(schema.Report{Subject: "link/beside", State: "refused", Severity: schema.SeverityWarn, Text: text})
	}
	return true
}

// Subscribe asks for what the fleet says on channels that have to be granted and on the
// filters, in one packet. A filter that is refused ends no connection, as records flow
// without it: an older fleet knows neither twins nor commands.
func (d *Desk) Subscribe(ctx context.Context, client mqtt.Client, must []schema.Channel, limit time.Duration, lost <-chan struct{}) error {
	filters, of := map[string]byte{}, map[string]schema.Channel{}
	for i, ch := range slices.Concat(must, d.Filters) {
		topic := schema.Topic{Tenant: d.Tenant, Board: d.Board, Channel: ch}.String()
		if ch == schema.ChanCommand {
			topic += "+"
		}
		if filters[topic] = 1; i >= len(must) {
			of[topic] = ch
		}
	}
	token := client.SubscribeMultiple(filters, nil)
	if err := flights.Await(ctx, token, limit, lost); err != nil {
		return err
	}
	sub, ok := token.(*mqtt.SubscribeToken)
	if !ok {
		return fmt.Errorf("the client gave a %T", token)
	}
	granted := sub.Result()
	var denied []schema.Channel
	for topic := range filters {
		switch qos, ok := granted[topic]; {
		case (!ok || qos > 1) && of[topic] != "":
			denied = append(denied, of[topic])
			d.Log.Warn("the broker does not let this board hear of it; update the fleet, or look at the broker's access rules", "topic", topic)
		case !ok || qos > 1:
			return fmt.Errorf("the broker refused %s; its access rules must let this board read it", topic)
		case qos == 0:
			d.Log.Warn("broker grants no QoS 1, its answers may get lost", "topic", topic)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.denied = denied
	return nil
}
