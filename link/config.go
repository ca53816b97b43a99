// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"fulmar/link/guard"
	"fulmar/link/outbox"
	"fulmar/schema"
)

// ErrBlobGone is wrapped by a [BlobOpener] for a blob that is not there any more.
var ErrBlobGone = outbox.ErrBlobGone

// What the link needs of a spool and of pictures.
type (
	Outbox       = outbox.Outbox
	EpochReader  = outbox.EpochReader
	OnlineTeller = outbox.OnlineTeller
	Refuser      = outbox.Refuser
	Blob         = outbox.Blob
	BlobOpener   = outbox.BlobOpener
)

// Defaults and bounds of a session.
const (
	defaultWindow      = 64        // messages; more only adds repeats after a loss
	defaultWindowBytes = 256 << 10 // bytes: two seconds of a 1 Mbit/s uplink
	maxWindow          = 1024      // messages; paho has 65,535 packet ids
	defaultKeepAlive   = 60 * time.Second
	defaultAckTimeout  = 45 * time.Second // no PUBACK progress for so long: half-open
	defaultReconnect   = 30 * time.Second
	stableAfter        = time.Minute      // a connection that held so long resets the backoff
	connectTimeout     = 15 * time.Second // TCP, TLS and CONNACK
	helloTimeout       = 15 * time.Second
	helloPatience      = 3 * time.Second // with a fixed mode, a silent fleet is not waited for longer
	writeTimeout       = guard.WriteTimeout
	pingTimeout        = 10 * time.Second
	drainTimeout       = 2 * time.Second        // on a stop, for what is in flight
	lossGrace          = 200 * time.Millisecond // after a loss; a publisher stuck in the client ends by itself
	byeTimeout         = 500 * time.Millisecond
	reasonTimeout      = 100 * time.Millisecond // between a token's failure and its reason
	maxInbound         = 64                     // messages waiting; more ends the generation, the fleet asks again
	maxPacket          = guard.MaxPacket
	maxRetryAfter      = 15 * time.Minute // a fleet may ask for patience, not for silence
	maxReconnectWindow = time.Hour        // 10,000 boards at three a second
	maxKeepAlive       = 4 * time.Minute  // carriers forget a silent connection after five
	numFilters         = 2                // subscriptions: hello/ack and ack
)

// Config shapes a session. Zero fields get the defaults.
type Config struct {
	Tenant, Board string
	ClientID      string
	Release       string // of fulmard, told in hello
	Facts         map[string]string
	Clock         schema.Clock
	// Dial opens the connection, TLS included. It must obey its context.
	Dial               func(ctx context.Context) (net.Conn, error)
	Username, Password string          // for foreign brokers
	Mode               *schema.AckMode // nil: told by the fleet
	Window             int             // messages in flight
	WindowBytes        int             // bytes in flight
	KeepAlive          time.Duration
	AckTimeout         time.Duration
	ReconnectWindow    time.Duration  // until the fleet tells its own
	Jitter             func() float64 // 0 to below 1, for each reconnect; nil: seeded by the system, unlike on any other board
	// Report is given what an operator should know: a record that a broker refuses, a
	// class of which nothing gets through. Nil: only the log is.
	Report func(schema.Report)
	// Attest answers a nonce of the fleet with an encoded [schema.Attestation]. It must
	// obey its context, and may take its time: nothing waits for it. Nil: the board
	// proves nothing, and no answer is sent.
	Attest func(ctx context.Context, nonce []byte) ([]byte, error)
	// Filters are what the board hears more: tw/d, c/ (all its commands), keys, ota/d, ota/c. One
	// that the broker refuses is logged, and no reason to be without a connection.
	Filters []schema.Channel
	// Inbox is given each message on the filters, one at a time, also before Connected. It
	// must not block: nothing else is read meanwhile.
	Inbox func(Down)
	// Connected is called each time records begin to flow, with the connection's number
	// as in hello. Its context ends with the connection; it has to return then.
	Connected func(ctx context.Context, conn uint64)
	// Heard is given each word of the fleet on hello/ack for the present connection, before
	// what came after it on the filters. It must not block.
	Heard func(schema.HelloAck)
	// Keys gives the version of the key set that the board goes by, for hello; nil: 0.
	Keys func() uint64
	Log  *slog.Logger
}

func (c *Config) complete() error {
	if err := errors.Join(schema.CheckBoard(c.Tenant), schema.CheckBoard(c.Board)); err != nil {
		return err
	}
	if c.Dial == nil {
		return errors.New("link without a way to dial")
	}
	if c.Window < 0 || c.Window > maxWindow || c.WindowBytes < 0 {
		return fmt.Errorf("link with a window of %d messages and %d bytes, wants 1 to %d messages", c.Window, c.WindowBytes, maxWindow)
	}
	if c.KeepAlive != 0 && (c.KeepAlive < time.Second || c.KeepAlive > maxKeepAlive) {
		return fmt.Errorf("link with a keep-alive of %v, wants 1s to %v", c.KeepAlive, maxKeepAlive)
	}
	if c.AckTimeout < 0 || c.ReconnectWindow < 0 {
		return fmt.Errorf("link with an acknowledgement timeout of %v and a reconnect window of %v", c.AckTimeout, c.ReconnectWindow)
	}
	if c.Mode != nil && *c.Mode > schema.AckBroker {
		return fmt.Errorf("link with unknown acknowledgement mode %d", *c.Mode)
	}
	if len(c.Filters) > 0 && c.Inbox == nil {
		return errors.New("link with filters and nobody to take what comes")
	}
	// A hello that cannot be sent would fail each connection anew: better now.
	hello := schema.Hello{V: schema.Version, Board: c.Board, Release: c.Release, Facts: c.Facts}
	if err := hello.Validate(); err != nil {
		return err
	}
	c.KeepAlive = cmp.Or(c.KeepAlive, defaultKeepAlive)
	c.AckTimeout = cmp.Or(c.AckTimeout, defaultAckTimeout)
	c.ReconnectWindow = cmp.Or(c.ReconnectWindow, defaultReconnect)
	c.Window, c.WindowBytes = cmp.Or(c.Window, defaultWindow), cmp.Or(c.WindowBytes, defaultWindowBytes)
	c.ClientID = cmp.Or(c.ClientID, c.Board)
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.Keys == nil {
		c.Keys = func() uint64 { return 0 }
	}
	if c.Connected == nil {
		c.Connected = func(context.Context, uint64) {}
	}
	if c.Heard == nil {
		c.Heard = func(schema.HelloAck) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
