// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ingest"
	"fulmar/internal/run"
	"fulmar/link/guard"
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
	// foreignFilters is how many subscriptions the fleet asks for.
	foreignFilters = 5
	// maxAnswers bounds our words that the broker has not acknowledged: a broker that
	// never does must not fill the client's table of numbers.
	maxAnswers = 1024
	// maxPictureTries is how often a picture's index is left unacknowledged, so that its
	// board sends the picture again. What came over whole and is still not what its
	// index says was damaged before, and no repeat will mend it.
	maxPictureTries = 3
	// maxTried bounds the pictures remembered for that.
	maxTried = 4096
	// packetOverhead is what an MQTT PUBLISH adds to its payload: header, topic, id.
	packetOverhead = 1 << 10
	// ingestTimeout is how long a message may wait for its commit. Longer than any
	// healthy disk needs; then it is dropped, and its board sends it again.
	ingestTimeout = 30 * time.Second
	// window is the time over which boards spread reconnects to that broker, whose pace
	// is not ours to know.
	window = 2 * time.Second
	// newerAway is how long a board stays away that speaks a newer wire version, as at
	// the gateway.
	newerAway = 5 * time.Minute
	// stopTimeout bounds the wait for the lanes to end.
	stopTimeout = 3 * time.Second
)

// Ingester makes messages durable (fleet/ingest).
type Ingester interface {
	Publish(ctx context.Context, key ingest.BoardKey, topic string, payload []byte) (ack *schema.Ack, refused bool, err error)
	Hello(ctx context.Context, key ingest.BoardKey, h *schema.Hello) error
	Presence(ctx context.Context, key ingest.BoardKey, p schema.Presence) error
	// Newer notes that a board speaks a newer wire version; its error is ingest.ErrNewer.
	Newer(ctx context.Context, key ingest.BoardKey, version uint8) error
}

// Config names somebody else's broker.
type Config struct {
	Address  string      // host:port
	TLS      *tls.Config // nil: plain, only for a broker on this machine
	Tenant   string      // whose boards speak there
	Username string
	Password string
	Pictures Pictures // nil: not looked at
	// Dial opens the connection before TLS, within its context; nil: by TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Jitter gives 0 to below 1 for each wait before a connection; nil: by the system.
	Jitter func() float64
}

// Pictures tells whether a board's picture is here, whole and as its index says.
type Pictures interface {
	Complete(tenant, board, name string, size int64, sum [32]byte) (bool, error)
}

// Stats are counters since the start.
type Stats struct {
	Connected bool
	Messages  uint64 // stored
	Dropped   uint64 // not taken or not stored: their boards send again
	Refused   uint64 // payloads that can never be understood
	Newer     uint64 // words of a newer wire version: not taken, not acknowledged
}

// Client ingests from somebody else's broker. That broker's PUBACK says nothing
// of our disk, so boards keep their records until the fleet's own [schema.Ack]
// comes on their topic ack. Who may write to which topic is up to that broker:
// there are no certificates of ours.
type Client struct {
	cfg    Config
	ingest Ingester
	log    *slog.Logger
	lanes  [lanes]chan letter

	mu     sync.Mutex
	boards map[string]bool
	tried  map[string]int // pictures whose index came before all of them, by board and name

	connected                         atomic.Bool
	messages, dropped, refused, newer atomic.Uint64
}

// letter is one message on its way to ingest.
type letter struct {
	wire    *wire // of the connection it came by: the answer goes there
	topic   schema.Topic
	raw     string
	payload []byte
}

// New makes an ingester from a foreign broker.
func New(cfg Config, in Ingester, log *slog.Logger) (*Client, error) {
	if cfg.Tenant == "" {
		cfg.Tenant = "default"
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Jitter == nil {
		cfg.Jitter = mathrand.Float64
	}
	if err := schema.CheckBoard(cfg.Tenant); err != nil {
		return nil, fmt.Errorf("foreign broker: tenant: %w", err)
	}
	f := &Client{cfg: cfg, ingest: in, log: log, boards: map[string]bool{}, tried: map[string]int{}}
	for i := range f.lanes {
		f.lanes[i] = make(chan letter, laneLen)
	}
	return f, nil
}

// Stats tells the counters.
func (f *Client) Stats() Stats {
	return Stats{Connected: f.connected.Load(), Messages: f.messages.Load(), Dropped: f.dropped.Load(), Refused: f.refused.Load(), Newer: f.newer.Load()}
}

// Run stays connected until the context ends.
func (f *Client) Run(ctx context.Context) error {
	g := run.New(ctx)
	for i := range f.lanes {
		g.Go("lane", func(ctx context.Context) error { return f.work(ctx, f.lanes[i]) })
	}
	g.Go("connection", f.stay)
	return g.Wait(stopTimeout)
}

// stay keeps one connection after another; each is a new client, so that nothing
// of a lost one lives on.
func (f *Client) stay(ctx context.Context) error {
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
		case <-time.After(time.Duration(f.cfg.Jitter() * float64(wait))):
		case <-ctx.Done():
		}
		wait = min(2*wait, retryMax)
	}
	return nil
}

// once connects, subscribes and waits for the end of the connection.
func (f *Client) once(ctx context.Context) error {
	w := &wire{lost: make(chan error, 1), answers: make(chan mqtt.Token, maxAnswers)}
	var id [8]byte
	_, _ = rand.Read(id[:])
	o := mqtt.NewClientOptions().AddBroker("tcp://broker").SetClientID("fulmar-fleet-" + hex.EncodeToString(id[:])).
		SetProtocolVersion(4).SetStore(guard.NoStore{}).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false).
		SetKeepAlive(30 * time.Second).SetPingTimeout(foreignTimeout).SetWriteTimeout(foreignTimeout).SetConnectTimeout(foreignTimeout).
		SetUsername(f.cfg.Username).SetPassword(f.cfg.Password).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return f.dial(ctx) })
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { f.receive(w, m) })
	o.SetConnectionLostHandler(func(_ mqtt.Client, err error) { w.end(err) })
	c := mqtt.NewClient(o)
	w.client = c
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
	return w.stay(ctx)
}

// dial opens the connection, guarded as a board's: the client believes what it reads.
func (f *Client) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, foreignTimeout)
	defer cancel()
	conn, err := f.cfg.Dial(ctx, "tcp", f.cfg.Address)
	if err != nil {
		return nil, err
	}
	if f.cfg.TLS != nil {
		secured := tls.Client(conn, f.cfg.TLS.Clone())
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("TLS with %s: %w", f.cfg.Address, err), conn.Close())
		}
		conn = secured
	}
	return guard.New(conn, guard.Config{Filters: foreignFilters, MaxPacket: schema.MaxPayload + packetOverhead}), nil
}

// wire is one connection to the broker.
type wire struct {
	client  mqtt.Client
	lost    chan error
	answers chan mqtt.Token // of what we said; the broker has not acknowledged it yet
}

// end gives up the connection; the first reason stands.
func (w *wire) end(why error) {
	select {
	case w.lost <- why:
	default:
	}
}

// stay waits until the connection is lost or the context ends, and sees to it that
// the broker takes what we say.
func (w *wire) stay(ctx context.Context) error {
	for {
		var oldest <-chan struct{}
		var late <-chan time.Time
		var t mqtt.Token
		select {
		case t = <-w.answers:
			oldest, late = t.Done(), time.After(foreignTimeout)
		case err := <-w.lost:
			return err
		case <-ctx.Done():
			return nil
		}
		select {
		case <-oldest:
		case <-late:
			return fmt.Errorf("broker does not acknowledge the fleet's words: %w", errNoAnswer)
		case err := <-w.lost:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// say publishes without waiting.
func (w *wire) say(topic string, payload []byte) {
	select {
	case w.answers <- w.client.Publish(topic, 1, false, payload):
	default:
		w.end(fmt.Errorf("broker has not acknowledged %d of the fleet's words", maxAnswers))
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
func (f *Client) receive(w *wire, m mqtt.Message) {
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
	case f.lanes[h%lanes] <- letter{w, t, m.Topic(), m.Payload()}:
	default:
		f.dropped.Add(1)
	}
}

// know remembers a board; false where there are too many.
func (f *Client) know(board string) bool {
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

func (f *Client) work(ctx context.Context, lane <-chan letter) error {
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
func (f *Client) take(ctx context.Context, l letter) error {
	key := ingest.BoardKey{Tenant: l.topic.Tenant, Board: l.topic.Board}
	if v, newer := schema.Newer(l.payload); newer {
		return f.wait(ctx, key, l, v)
	}
	switch l.topic.Channel {
	case schema.ChanPresence:
		var p schema.Presence
		if schema.Decode(l.payload, &p) == nil && p.V > 0 && p.V <= schema.Version {
			return f.ingest.Presence(ctx, key, p)
		}
	case schema.ChanHello:
		h := new(schema.Hello)
		if schema.Decode(l.payload, h) == nil && ingest.CheckHello(key, h) == nil {
			return f.hello(ctx, l.wire, key, h)
		}
	}
	if err := f.whole(key, l); err != nil {
		return err
	}
	ack, refused, err := f.ingest.Publish(ctx, key, l.raw, l.payload)
	if err != nil {
		return err
	}
	if refused {
		f.refused.Add(1)
	} else {
		f.messages.Add(1)
	}
	if ack == nil {
		return nil // a piece of a picture, whose index is; or nobody knows what was in it
	}
	return f.answer(l.wire, key, schema.ChanAck, ack)
}

// wait notes that a board speaks a newer wire version. It keeps what is not
// acknowledged; where it said hello it is asked to stay away for a while.
func (f *Client) wait(ctx context.Context, key ingest.BoardKey, l letter, version uint8) error {
	f.newer.Add(1)
	if err := f.ingest.Newer(ctx, key, version); !errors.Is(err, ingest.ErrNewer) {
		return err
	}
	if l.topic.Channel != schema.ChanHello {
		return nil
	}
	return f.answer(l.wire, key, schema.ChanHelloAck, &schema.HelloAck{
		V: schema.Version, Conn: schema.HelloConn(l.payload), Mode: schema.AckFleet, Wall: time.Now().UnixMilli(),
		ReconnectMs: window.Milliseconds(), RetryAfterMs: newerAway.Milliseconds(),
	})
}

// whole refuses the index of a picture that is not here whole: pieces may have been
// lost between the broker and us. Nothing of the message is stored or acknowledged
// then, and its board sends the picture again.
func (f *Client) whole(key ingest.BoardKey, l letter) error {
	if f.cfg.Pictures == nil || l.topic.Channel != schema.ChanEvent || l.topic.Tail != schema.ClassSnapshot.String() {
		return nil
	}
	m := new(schema.Message)
	if schema.Decode(l.payload, m) != nil {
		return nil // ingest says what is wrong with it
	}
	for _, r := range m.Records {
		rec, err := schema.DecodeRecord(r.Payload)
		if err != nil || rec.Snapshot == nil {
			continue
		}
		s := rec.Snapshot
		whole, err := f.cfg.Pictures.Complete(key.Tenant, key.Board, s.Name, s.Size, s.SHA256)
		if !whole && f.again(key.Board+"/"+s.Name) {
			return errors.Join(fmt.Errorf("picture %s has not come whole; its index is not acknowledged, so that the board sends it again", s.Name), err)
		}
	}
	return nil
}

// again tells whether a picture is worth another try, and counts it.
func (f *Client) again(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tried[name]++; f.tried[name] > maxPictureTries {
		delete(f.tried, name)
		return false
	}
	if len(f.tried) > maxTried {
		clear(f.tried)
	}
	return true
}

func (f *Client) hello(ctx context.Context, w *wire, key ingest.BoardKey, h *schema.Hello) error {
	if err := f.ingest.Hello(ctx, key, h); err != nil {
		return err
	}
	err := f.ingest.Presence(ctx, key, schema.Presence{V: schema.Version, Online: true, Boot: h.Now.Boot, Conn: h.Conn})
	if err != nil {
		return err
	}
	return f.answer(w, key, schema.ChanHelloAck, &schema.HelloAck{
		V: schema.Version, Conn: h.Conn, Mode: schema.AckFleet, Wall: time.Now().UnixMilli(), ReconnectMs: window.Milliseconds(),
	})
}

// answer publishes to a board. An answer that is lost does no harm: the board asks
// or sends again.
func (f *Client) answer(w *wire, key ingest.BoardKey, ch schema.Channel, v any) error {
	b, err := schema.Encode(v)
	if err != nil {
		return err
	}
	w.say(schema.Topic{Tenant: key.Tenant, Board: key.Board, Channel: ch}.String(), b)
	return nil
}
