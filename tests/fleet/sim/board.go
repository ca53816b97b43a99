// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"fulmar/schema"
	"fulmar/tests/fleet/sim/mind"
	"fulmar/tests/fleet/sim/wire"
)

const (
	// retryMin and retryMax bound the wait between two tries to connect.
	retryMin, retryMax = time.Second, 30 * time.Second
	// firstWindow is over which reconnects are spread until the fleet tells its window.
	firstWindow = 2 * time.Second
	// pulse is how often a board looks at what goes by time.
	pulse = time.Second
	// pingEvery keeps a connection alive.
	pingEvery = 45 * time.Second
	// helloTimeout is how long a hello may stay without an answer.
	helloTimeout = 30 * time.Second
	// drainFor is how long a board goes on sending what it has when it is stopped.
	drainFor = 5 * time.Second
)

// board is one simulated board; its fields belong to the goroutine of live.
type board struct {
	f       *Fleet
	id      *identity
	name    string
	site    *site
	number  int
	facts   map[string]string
	release string
	trouble Trouble
	cameras []camera
	rnd     *rand.Rand
	dialer  *net.Dialer

	boot    uint64
	booted  time.Time
	conns   uint64 // connections tried
	batches uint64
	out     outbox
	state   feeling
	mind    *mind.Mind

	line     *wire.Line // nil while there is none
	since    time.Time  // of line
	greeted  bool       // the fleet has answered the hello
	flying   map[uint16]*flight
	window   time.Duration
	failures int
	wait     time.Duration // before the next try; 0: none is to be made
	isUp     atomic.Bool
}

// newBoard makes the i-th board of a fleet: all about it but its keys comes from the
// seed.
func (f *Fleet) newBoard(i int) *board {
	rnd := rand.New(rand.NewPCG(f.cfg.Seed, uint64(i)+1))
	b := &board{f: f, number: i, rnd: rnd, window: firstWindow}
	b.site = siteOf(i%f.cfg.Sites, i/f.cfg.Sites)
	b.name = fmt.Sprintf("%s-%s-%03d", b.site.name, b.site.place, i/f.cfg.Sites+1)
	b.dialer = f.dialer(b.site.number)
	b.equip()
	// Of this start alone: the same board boots anew each time.
	b.boot, b.booted = rand.Uint64(), time.Now().Add(-time.Duration(rnd.Int64N(int64(240*time.Hour))))
	for c := range b.out.epoch {
		b.out.epoch[c] = rand.Uint64()
	}
	return b
}

// clock is the board's own time; one whose clock was never set lives in 1970.
func (b *board) clock(at time.Time) schema.Time {
	t := schema.Time{Boot: b.boot, Mono: int64(at.Sub(b.booted)), Wall: at.UnixMilli()}
	if b.trouble == TroubleClock {
		t.Wall = at.Sub(b.booted).Milliseconds()
	}
	return t
}

type dialed struct {
	line *wire.Line
	err  error
}

// live is the whole life of a board.
func (b *board) live(ctx context.Context, first time.Duration) error {
	b.wake(time.Now())
	b.mind = mind.New(mind.Config{Tenant: b.id.Tenant, Board: b.name, Clock: b.clock, Feels: func() map[string]any {
		return map[string]any{"thermal.tj_celsius": b.state.heat, "cpu.load_percent": b.state.load}
	}})
	samples, beat, ping := b.timer(b.f.cfg.Every), b.timer(pulse), b.timer(pingEvery)
	retry := time.NewTimer(first)
	defer func() {
		for _, t := range []*time.Timer{samples, beat, ping, retry} {
			t.Stop()
		}
	}()
	up := make(chan dialed, 1)
	dialing := false
	for {
		var in chan packets.ControlPacket
		if b.line != nil {
			in = b.line.In
		}
		select {
		case <-ctx.Done():
			if dialing { // its context is ours
				b.connected(<-up)
			}
			b.leave()
			return nil
		case now := <-samples.C:
			b.sense(now)
			samples.Reset(b.f.cfg.Every)
		case now := <-beat.C:
			b.pass(now)
			b.says(b.mind.Pass(now, b.greeted))
			beat.Reset(pulse)
		case <-ping.C:
			if b.line != nil {
				b.line.Ping()
			}
			ping.Reset(pingEvery)
		case now := <-retry.C:
			if !b.uplink(now) {
				retry.Reset(pulse)
				break
			}
			b.conns++
			conn := b.conns
			dialing = true
			go func() {
				l, err := b.dial(ctx, conn)
				up <- dialed{l, err}
			}()
		case d := <-up:
			dialing = false
			b.connected(d)
		case p, ok := <-in:
			if ok {
				b.take(p)
			} else {
				b.lose()
			}
		}
		b.send()
		if b.wait > 0 {
			retry.Reset(b.wait)
			b.wait = 0
		}
	}
}

// timer gives one that goes off first at a random moment within its period; below 0
// never.
func (b *board) timer(period time.Duration) *time.Timer {
	if period < 0 {
		period = 1 << 62
	}
	return time.NewTimer(time.Duration(b.rnd.Int64N(int64(period))) + 1)
}

// dial connects. The will is a presence, as real boards leave one.
func (b *board) dial(ctx context.Context, conn uint64) (*wire.Line, error) {
	will, err := schema.Encode(b.presence(false, conn))
	if err != nil {
		return nil, err
	}
	return wire.Dial(ctx, wire.Config{
		Dialer: b.dialer, Address: b.id.Broker, TLS: b.id.tls, Client: b.name,
		Will: b.topic(schema.ChanPresence), WillSays: will,
		Subscribe: b.filters(),
	})
}

// filters are what a board hears.
func (b *board) filters() []string {
	out := []string{b.topic(schema.ChanHelloAck)}
	for _, f := range mind.Filters() {
		out = append(out, b.topic(schema.Channel(f)))
	}
	return out
}

// told takes what the fleet says.
func (b *board) told(topic string, payload []byte) {
	t, err := schema.ParseTopic(topic)
	switch {
	case err != nil:
	case t.Channel == schema.ChanHelloAck:
		b.answered(payload)
	default:
		b.says(b.mind.Told(t, payload))
	}
}

// says sends what the board has to say of its twin and its commands.
func (b *board) says(all []mind.Word) {
	for _, w := range all {
		if b.line != nil {
			b.fly(&flight{became: w.Became}, w.Channel, w.Payload)
		}
	}
}

func (b *board) topic(c schema.Channel) string {
	return schema.BoardPrefix(b.id.Tenant, b.name) + string(c)
}

func (b *board) presence(online bool, conn uint64) *schema.Presence {
	return &schema.Presence{V: schema.Version, Online: online, Boot: b.boot, Conn: conn}
}

// connected takes a new connection and says hello in it, or notes when to try again.
func (b *board) connected(d dialed) {
	if d.err != nil {
		b.f.n.failed.Add(1)
		b.f.cfg.Log.Debug("simulated board has no connection", "board", b.name, "err", d.err)
		b.failures++
		b.wait = retryMin + time.Duration(rand.Int64N(int64(min(retryMax, retryMin<<min(b.failures, 10)))))
		return
	}
	b.f.n.connects.Add(1)
	b.line, b.flying, b.since = d.line, map[uint16]*flight{}, time.Now()
	hello, err := schema.Encode(&schema.Hello{
		V: schema.Version, Board: b.name, Release: b.release, Conn: b.conns, Now: b.clock(time.Now()), Cursors: b.out.cursors(), Facts: b.facts, Keys: b.mind.Keys(),
	})
	if err == nil {
		_, err = b.line.Publish(b.topic(schema.ChanHello), hello)
	}
	if err != nil {
		b.hang("no hello: " + err.Error())
	}
}

// lose notes that the connection has ended.
func (b *board) lose() {
	b.line.Cut()
	if b.greeted {
		b.f.n.lost.Add(1)
	} else {
		b.f.n.failed.Add(1)
	}
	b.down()
	b.failures++
	b.wait = max(retryMin/10, time.Duration(rand.Int64N(int64(b.window))))
}

// hang ends the connection from this side.
func (b *board) hang(why string) {
	b.f.cfg.Log.Debug("simulated board hangs up", "board", b.name, "why", why)
	b.lose()
}

func (b *board) down() {
	if b.greeted {
		b.f.n.connected.Add(-1)
	}
	b.line, b.flying, b.greeted = nil, nil, false
	b.isUp.Store(false)
	b.out.ground()
}

// take looks at what the fleet says.
func (b *board) take(p packets.ControlPacket) {
	switch p := p.(type) {
	case *packets.PubackPacket:
		f := b.flying[p.MessageID]
		delete(b.flying, p.MessageID)
		if f != nil {
			b.stored(f)
		}
	case *packets.PublishPacket:
		if p.Qos > 0 {
			b.line.Ack(p.MessageID)
		}
		b.told(p.TopicName, p.Payload)
	}
}

// answered takes the fleet's answer to the hello.
func (b *board) answered(payload []byte) {
	var a schema.HelloAck
	if err := schema.Decode(payload, &a); err != nil || a.Conn != b.conns {
		return
	}
	if a.ReconnectMs > 0 {
		b.window = time.Duration(a.ReconnectMs) * time.Millisecond
	}
	if a.RetryAfterMs > 0 {
		b.f.n.sentAway.Add(1)
		b.line.Bye()
		b.down()
		b.wait = time.Duration(a.RetryAfterMs) * time.Millisecond
		return
	}
	if b.greeted {
		return // said again, as when the fleet sets another rate
	}
	b.greeted, b.failures = true, 0
	b.isUp.Store(true)
	b.f.n.connected.Add(1)
	if raw, err := schema.Encode(b.presence(true, b.conns)); err == nil {
		b.fly(&flight{}, schema.ChanPresence, raw)
	}
	b.confess(time.Now())
	b.says(b.mind.Connected(b.conns))
}

// stored frees what the fleet has acknowledged.
func (b *board) stored(f *flight) {
	n := &b.f.n
	n.messages.Add(1)
	if f.picture != nil {
		f.picture.sent, f.picture.flying = true, false
	}
	if f.became > 0 && b.f.cfg.Became != nil {
		b.f.cfg.Became(b.name, f.became)
	}
	if len(f.records) == 0 {
		return
	}
	b.out.free(f)
	n.records.Add(int64(len(f.records)))
	n.waiting.Add(-int64(len(f.records)))
	if b.f.cfg.Acked != nil {
		for _, k := range f.records {
			b.f.cfg.Acked(schema.ID{Board: b.name, Class: f.class, Epoch: b.out.epoch[f.class], Seq: k.seq})
		}
	}
}

// send fills the window.
func (b *board) send() {
	for b.greeted && len(b.flying) < window {
		f := b.out.pick(b.f.cfg.Packed)
		if f == nil {
			return
		}
		now := time.Now()
		channel := schema.Channel("")
		var raw []byte
		var err error
		if f.picture != nil {
			f.picture.flying = true
			channel = schema.ChanBlob + schema.Channel(f.picture.name)
			raw, err = schema.Encode(&schema.Chunk{V: schema.Version, Total: int64(len(f.picture.jpeg)), Data: f.picture.jpeg})
		} else {
			for _, k := range f.records {
				k.flying = true
			}
			t := schema.MessageTopic(b.id.Tenant, b.name, f.class)
			channel = t.Channel + schema.Channel(t.Tail)
			raw, err = b.message(f, now)
		}
		if err != nil {
			b.f.cfg.Log.Error("simulated message is none", "board", b.name, "err", err)
			return
		}
		b.fly(f, channel, raw)
	}
}

// fly sends a message and remembers what it holds.
func (b *board) fly(f *flight, c schema.Channel, raw []byte) {
	id, err := b.line.Publish(b.topic(c), raw)
	if err != nil {
		b.hang("not sent: " + err.Error())
		return
	}
	b.flying[id] = f
}

// leave sends what is left, for a moment, and says goodbye.
func (b *board) leave() {
	if b.line == nil {
		return
	}
	end := time.NewTimer(drainFor)
	defer end.Stop()
	for b.greeted && (len(b.flying) > 0 || b.out.pick(b.f.cfg.Packed) != nil) {
		b.send()
		if b.line == nil {
			return
		}
		select {
		case p, ok := <-b.line.In:
			if !ok {
				b.lose()
				return
			}
			b.take(p)
		case <-end.C:
			b.line.Bye()
			b.down()
			return
		}
	}
	if b.line == nil {
		return
	}
	if raw, err := schema.Encode(b.presence(false, b.conns)); err == nil && b.greeted {
		_, _ = b.line.Publish(b.topic(schema.ChanPresence), raw) // the gateway notes the end either way
	}
	b.line.Bye()
	b.down()
}
