// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"fulmar/fleet/ca"
	"fulmar/fleet/ingest"
	"fulmar/schema"
)

const (
	// maxKeepAlive bounds how long a silent board counts as connected (times 1.5).
	maxKeepAlive = 300 // seconds
	// maxSubscriptions bounds what one board subscribes to: it needs seven (hello/ack, ack,
	// tw/d, c/+, keys, ota/d, ota/c), and one for each of the two objects that it hears.
	maxSubscriptions = 9
	// warnEvery is how often bad payloads of one board are logged.
	warnEvery = time.Minute
	// maxWarned bounds the boards remembered for that.
	maxWarned = 4096
)

var (
	errCutOff   = errors.New("connection cut off")
	errNotSaved = errors.New("message not stored")
)

// hook is what mochi calls. Its methods run in the goroutine of the connection
// concerned; mochi handles the packets of one connection one after another, so a
// board has at most one message in ingest.
type hook struct {
	mqtt.HookBase
	g *Gateway
}

func (h *hook) ID() string { return "fleet" }

func (h *hook) Provides(b byte) bool {
	return slices.Contains([]byte{
		mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPublish, mqtt.OnPublished,
		mqtt.OnSessionEstablished, mqtt.OnWill,
	}, b)
}

// OnConnect refuses what no board of ours sends.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	switch {
	case pk.ProtocolVersion != 4:
		h.g.n.denied.Add(1)
		return packets.ErrUnsupportedProtocolVersion
	case pk.Connect.Keepalive == 0 || pk.Connect.Keepalive > maxKeepAlive:
		h.g.n.denied.Add(1)
		return errors.New("keep-alive is none or too long")
	}
	// Sessions are never kept: the fleet's database is the memory.
	cl.Properties.Clean = true
	return nil
}

// OnConnectAuthenticate takes the board's identity from its certificate.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	mark := h.g.mark.Load()
	id, why := h.identify(cl, pk)
	key := ingest.BoardKey{Tenant: id.Tenant, Board: id.Board}
	if why != "" {
		h.g.n.denied.Add(1)
		h.g.log.Warn("board turned away", "board", key.Board, "remote", cl.Net.Remote, "reason", why)
		return false
	}
	// mochi gets a name of its own for each connection. With one name for each
	// board it would take sessions over by itself: it writes to the old connection
	// first, which blocks where that is half open, and where the old one ends at
	// the same moment it removes the new one's subscriptions.
	cl.ID = key.Tenant + "/" + key.Board + "/" + strconv.FormatUint(h.g.serial.Add(1), 36)
	s := &session{key: key, id: id, client: cl, rate: meter{every: time.Second / boardRate, burst: boardBurst * time.Second / boardRate}}
	h.g.mu.Lock()
	old := h.g.sessions[key]
	h.g.sessions[key] = s
	h.g.conns[cl.Net.Conn] = s
	h.g.mu.Unlock()
	h.g.n.connected.Add(1)
	if old != nil {
		h.g.n.takenOver.Add(1)
		cutOff(old.client)
	}
	if h.g.mark.Load() != mark { // somebody was shut out since it was admitted
		if !h.g.recheck(h.g.ctx, key) {
			cutOff(cl)
		}
	}
	return true
}

func (h *hook) identify(cl *mqtt.Client, pk packets.Packet) (id ca.Identity, why string) {
	c, ok := cl.Net.Conn.(*tls.Conn)
	if !ok || len(c.ConnectionState().VerifiedChains) == 0 {
		return id, "no verified certificate"
	}
	id, err := ca.Identify(c.ConnectionState().VerifiedChains[0][0])
	if err != nil {
		return id, err.Error()
	}
	if pk.Connect.ClientIdentifier != id.Board {
		return id, "client id is not the board's name"
	}
	if pk.Connect.WillFlag && pk.Connect.WillTopic != schema.BoardPrefix(id.Tenant, id.Board)+string(schema.ChanPresence) {
		return id, "will on a foreign topic"
	}
	ctx, cancel := context.WithTimeout(h.g.ctx, ingestTimeout)
	defer cancel()
	ok, err = h.g.admit.Admit(ctx, id)
	if err != nil {
		return id, "registry: " + err.Error()
	}
	if !ok {
		return id, "unknown, revoked or replaced certificate"
	}
	return id, ""
}

// OnSessionEstablished counts.
func (h *hook) OnSessionEstablished(*mqtt.Client, packets.Packet) {
	h.g.n.accepted.Add(1)
}

// of gives the session of a client, nil where a newer one has taken its place.
func (h *hook) of(cl *mqtt.Client) *session {
	h.g.mu.Lock()
	defer h.g.mu.Unlock()
	if s := h.g.conns[cl.Net.Conn]; s != nil && h.g.sessions[s.key] == s {
		return s
	}
	return nil
}

// OnACLCheck lets a board write its own upward topics and hear its own downward
// ones. It is asked for subscriptions and for each delivery.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	name := strings.SplitN(cl.ID, "/", 3) // as OnConnectAuthenticate made it
	if len(name) != 3 {
		return false
	}
	rest, ok := strings.CutPrefix(topic, schema.BoardPrefix(name[0], name[1]))
	if !ok { // it may be an object's
		return !write && cl.State.Subscriptions.Len() < maxSubscriptions && h.g.pieces.MayHear(name[0], name[1], topic)
	}
	if !write {
		return hears(rest, topic) && cl.State.Subscriptions.Len() <= maxSubscriptions
	}
	t, err := schema.ParseTopic(topic)
	if err != nil {
		return false
	}
	switch t.Channel {
	case schema.ChanPresence, schema.ChanHello, schema.ChanStream, schema.ChanEvent, schema.ChanBlob, schema.ChanAttest, schema.ChanOTAState, schema.ChanTwinUp, schema.ChanResult, schema.ChanWant:
		return true
	}
	return false
}

// hears tells whether a board may hear of a topic of its own, or of all its commands:
// rest is what follows the board.
func hears(rest, topic string) bool {
	switch schema.Channel(rest) {
	case schema.ChanHelloAck, schema.ChanAck, schema.ChanAssign, schema.ChanTwinDown, schema.ChanKeys, schema.ChanPiece, schema.ChanCommand + "+":
		return true
	}
	t, err := schema.ParseTopic(topic)
	return err == nil && t.Channel == schema.ChanCommand
}

// OnPublish returns once the message is stored; mochi sends PUBACK after it. For
// MQTT 3.1.1 mochi would also send PUBACK when this returned any error but
// ErrRejectPacket, so a failure is that one, with the connection closed first: the
// board sends everything again that has no PUBACK.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil // our own, downwards
	}
	s := h.of(cl)
	if s == nil {
		cutOff(cl) // taken over: the newer connection speaks for the board
		return pk, packets.ErrRejectPacket
	}
	if pk.FixedHeader.Qos == 0 {
		return pk, packets.ErrRejectPacket // nobody waits for it to be stored
	}
	if !s.slow(h.g.ctx) || s.newer {
		return pk, packets.ErrRejectPacket
	}
	ctx, cancel := context.WithTimeout(h.g.ctx, ingestTimeout)
	defer cancel()
	switch err := h.take(ctx, s, pk); {
	case errors.Is(err, ingest.ErrNewer):
		return h.newer(cl, s, pk)
	case err != nil:
		h.g.n.failed.Add(1)
		h.g.log.Error("message not stored, connection closed", "board", s.key.Board, "error", err.Error())
		cutOff(cl)
		cl.Stop(errNotSaved)
		return pk, packets.ErrRejectPacket
	}
	return pk, packets.CodeSuccessIgnore // acknowledged, delivered to nobody, never retained
}

func (h *hook) take(ctx context.Context, s *session, pk packets.Packet) error {
	t, err := schema.ParseTopic(pk.TopicName)
	if err != nil {
		return err // OnACLCheck has parsed it
	}
	if v, newer := schema.Newer(pk.Payload); newer {
		return h.g.ingest.Newer(ctx, s.key, v)
	}
	switch t.Channel {
	case schema.ChanPresence:
		var p schema.Presence
		if err := schema.Decode(pk.Payload, &p); err != nil || p.V == 0 || p.V > schema.Version {
			return h.bad(ctx, s, pk)
		}
		s.heard(p.Boot, p.Conn)
		return h.g.ingest.Presence(ctx, s.key, p)
	case schema.ChanHello:
		return h.hello(ctx, s, pk)
	case schema.ChanAttest:
		h.g.attested(ctx, s, pk.Payload)
		return nil
	case schema.ChanOTAState:
		return h.updated(ctx, s, pk)
	case schema.ChanTwinUp:
		return h.twinSaid(ctx, s, pk)
	case schema.ChanResult:
		return h.resulted(ctx, s, t, pk)
	case schema.ChanWant:
		return h.wanted(ctx, s, pk)
	}
	_, refused, err := h.g.ingest.Publish(ctx, s.key, pk.TopicName, pk.Payload)
	if refused {
		h.refused(s.key)
	}
	return err
}

// newer deals with a word of a newer wire version, which ingest has noted. The board
// is asked to go and come back later: that is no end that the link would blame a
// message for. What comes after it in this connection is not answered either, so that
// no later message is acknowledged before it. A hello or a presence holds no record,
// and a board hears the answer to its hello only after the PUBACK.
func (h *hook) newer(cl *mqtt.Client, s *session, pk packets.Packet) (packets.Packet, error) {
	h.g.n.newer.Add(1)
	h.g.warn(s.key, "board speaks a newer wire version; its records stay on it until this fleet is updated")
	conn := s.conn.Load()
	t, _ := schema.ParseTopic(pk.TopicName)
	record := t.Channel != schema.ChanHello && t.Channel != schema.ChanPresence
	if t.Channel == schema.ChanHello {
		conn = schema.HelloConn(pk.Payload)
	}
	if err := h.g.answer(s.key, conn, time.Duration(h.g.away.Load())); err != nil {
		h.g.log.Warn("board not told to wait", "board", s.key.Board, "error", err.Error())
	}
	s.newer = record
	if record {
		return pk, packets.ErrRejectPacket
	}
	return pk, packets.CodeSuccessIgnore
}

func (s *session) heard(boot, conn uint64) {
	s.boot.Store(boot)
	s.conn.Store(conn)
	s.spoke.Store(true)
}

// bad hands what is not understood to ingest, which keeps the proof.
func (h *hook) bad(ctx context.Context, s *session, pk packets.Packet) error {
	_, _, err := h.g.ingest.Publish(ctx, s.key, pk.TopicName, pk.Payload)
	h.refused(s.key)
	return err
}

// hello stores who the board says it is and answers with the rules that hold here.
func (h *hook) hello(ctx context.Context, s *session, pk packets.Packet) error {
	hello := new(schema.Hello)
	if err := schema.Decode(pk.Payload, hello); err != nil || ingest.CheckHello(s.key, hello) != nil {
		return h.bad(ctx, s, pk)
	}
	if wait := h.g.door.ask(s.key, time.Now()); wait > 0 {
		h.g.n.sentAway.Add(1)
		return h.g.answer(s.key, hello.Conn, max(wait, time.Millisecond)) // nothing was stored of it
	}
	s.heard(hello.Now.Boot, hello.Conn)
	if h.g.cfg.Hello != nil {
		h.g.cfg.Hello(s.key, hello)
	}
	if err := h.g.ingest.Hello(ctx, s.key, hello); err != nil {
		return err
	}
	// A hello is as good as an "online": a board need not say both.
	err := h.g.ingest.Presence(ctx, s.key, schema.Presence{V: schema.Version, Online: true, Boot: hello.Now.Boot, Conn: hello.Conn})
	if err != nil {
		return err
	}
	if err := h.g.answer(s.key, hello.Conn, 0); err != nil {
		return err
	}
	h.g.sendKeys(s.key, hello.Keys)
	if h.g.cfg.Commands != nil {
		h.g.came.add(s.key)
	}
	return nil
}

// refused counts a payload that was not understood.
func (h *hook) refused(key ingest.BoardKey) {
	h.g.n.refused.Add(1)
	h.g.warn(key, "payload refused, see table refused of the ledger")
}

// warn logs what is wrong with a board's payloads, once a minute.
func (g *Gateway) warn(key ingest.BoardKey, what string) {
	now := time.Now()
	g.mu.Lock()
	last, known := g.warned[key]
	due := now.Sub(last) >= warnEvery
	if due {
		if !known && len(g.warned) >= maxWarned {
			clear(g.warned)
		}
		g.warned[key] = now
	}
	g.mu.Unlock()
	if due {
		g.log.Warn(what, "tenant", key.Tenant, "board", key.Board)
	}
}

// OnWill keeps mochi from publishing the will: whether the board is gone is told
// by ended, which knows if a newer connection has taken over.
func (h *hook) OnWill(_ *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	will.Retain = false
	return will, nil
}

// ended notes that a board has gone, unless it is back already. The listener calls
// it for every connection, also where mochi gave up before its session began.
func (g *Gateway) ended(conn net.Conn) {
	g.mu.Lock()
	s := g.conns[conn]
	newest := s != nil && g.sessions[s.key] == s
	if newest {
		delete(g.sessions, s.key)
	}
	g.mu.Unlock()
	if s == nil {
		return
	}
	defer func() { // last, for Drop
		g.mu.Lock()
		delete(g.conns, conn)
		g.mu.Unlock()
	}()
	g.n.connected.Add(-1)
	if !newest || !s.spoke.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, ingestTimeout)
	defer cancel()
	err := g.ingest.Presence(ctx, s.key, schema.Presence{V: schema.Version, Boot: s.boot.Load(), Conn: s.conn.Load()})
	if err != nil && g.ctx.Err() == nil {
		g.log.Warn("departure not stored", "board", s.key.Board, "error", err.Error())
	}
}
