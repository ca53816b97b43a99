// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package beside

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/schema"
)

// MaxFlying is how many messages may be without their PUBACK. A twin has one, and
// results come one after another from each of a few lanes; more would only be a queue,
// and callers have better ones.
const MaxFlying = 8

var (
	// ErrLost: the connection ended before the PUBACK.
	ErrLost = errors.New("the connection ended before it was acknowledged")
	// ErrSilent: no PUBACK for too long.
	ErrSilent = errors.New("no PUBACK")
)

// Key names what is told: a channel, and the command where it is a result.
type Key struct {
	Channel schema.Channel
	Tail    string
}

// letter is one message.
type letter struct {
	key     Key
	topic   string
	payload []byte
	done    chan error // 1-buffered: nil after the PUBACK

	order uint64 // among all that was handed to the client in this connection
	token mqtt.Token
}

// acknowledged tells whether its PUBACK came.
func (l *letter) acknowledged() bool {
	select {
	case <-l.token.Done():
		return l.token.Error() == nil
	default:
		return false
	}
}

// Post is what one connection sends beside the records.
type Post struct {
	slots chan struct{} // of letters not yet acknowledged
	in    chan *letter  // its capacity is the number of slots: who has one never waits
	over  chan struct{} // Run has ended
	lost  <-chan struct{}

	mu   sync.Mutex
	open []*letter // handed to the client, in that order
}

// New makes one for a connection; lost is closed when that is over.
func New(lost <-chan struct{}) *Post {
	return &Post{slots: make(chan struct{}, MaxFlying), in: make(chan *letter, MaxFlying), over: make(chan struct{}), lost: lost}
}

// Send hands a message over and waits for its PUBACK: nil after it, [ErrLost] where the
// connection ended before, or the context's error. A message whose caller went away
// keeps its slot until its PUBACK.
func (p *Post) Send(ctx context.Context, key Key, topic string, payload []byte) error {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-p.over:
		return ErrLost
	case <-p.lost:
		return ErrLost
	}
	l := &letter{key: key, topic: topic, payload: payload, done: make(chan error, 1)}
	p.in <- l
	select {
	case err := <-l.done:
		return err
	case <-ctx.Done():
	case <-p.over:
	case <-p.lost:
	}
	select {
	case err := <-l.done: // both at once: what is acknowledged is
		return err
	default:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return ErrLost
}

// Config is what a [Post] needs of its connection.
type Config struct {
	// Publish hands a message of QoS 1 to the client. It may take long where the line
	// is stuck.
	Publish func(topic string, payload []byte) mqtt.Token
	// Order numbers what is handed to the client, the records too.
	Order func() uint64
	// Acked is told of each message that was acknowledged.
	Acked func(Key)
	// Timeout is how long the oldest may wait for its PUBACK.
	Timeout time.Duration
}

// Run sends until the context ends or the connection is lost. Its error is a reason to
// end the connection: [ErrSilent] where the oldest was not acknowledged in time. It is
// called once.
func (p *Post) Run(ctx context.Context, cfg Config) error {
	defer close(p.over)
	late := time.NewTimer(cfg.Timeout)
	defer late.Stop()
	var open []*letter // as p.open; only this goroutine changes that
	for {
		var oldest <-chan struct{}
		var timeout <-chan time.Time
		if len(open) > 0 {
			oldest, timeout = open[0].token.Done(), late.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.lost:
			return nil
		case <-timeout:
			return fmt.Errorf("%w for a message on %s within %v: the connection is half open", ErrSilent, open[0].topic, cfg.Timeout)
		case l := <-p.in:
			l.order = cfg.Order()
			l.token = cfg.Publish(l.topic, l.payload)
			if open = append(open, l); len(open) == 1 {
				late.Reset(cfg.Timeout)
			}
		case <-oldest:
			l := open[0]
			if err := l.token.Error(); err != nil {
				l.done <- fmt.Errorf("%w: %w", ErrLost, err)
				return fmt.Errorf("publish on %s: %w", l.topic, err)
			}
			cfg.Acked(l.key)
			l.done <- nil
			open = slices.Delete(open, 0, 1)
			late.Reset(cfg.Timeout)
			<-p.slots
		}
		p.mu.Lock()
		p.open = append(p.open[:0], open...)
		p.mu.Unlock()
	}
}

// Oldest tells which message waited longest for its PUBACK when the connection ended,
// and when it was handed over; ok is false where none did.
func (p *Post) Oldest() (key Key, order uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.open {
		if !l.acknowledged() {
			return l.key, l.order, true
		}
	}
	return Key{}, 0, false
}
