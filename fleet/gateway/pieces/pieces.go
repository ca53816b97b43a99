// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package pieces brings pieces of objects to boards through the gateway's connections,
// beside the broker: a piece is put into its packet once for all who hear it, a board has
// room for a few, and one that takes them slowly gets fewer, not later ones. The fleet's own
// words go by the broker's queue and wait for one piece at most.
package pieces

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"golang.org/x/sys/unix"

	"fulmar/internal/run"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
)

const (
	// maxQueue is how many pieces wait for one board.
	maxQueue = 4
	// notSent is how much of a connection waits in this kernel, in bytes: what is written
	// behind pieces, a PUBACK above all, comes after no more than that, however slow the line.
	notSent = 64 << 10
)

var (
	// ErrAway: the board is not connected, or hears no pieces.
	ErrAway = errors.New("the board does not hear pieces")
	// ErrBusy: the board has not taken those before.
	ErrBusy = errors.New("the board has not taken the pieces before")
)

// Objects takes what boards want of objects. Its methods return at once.
type Objects interface {
	// Want takes a board's word, which is valid. Any board that is let in may say it.
	Want(tenant, board string, w *ota.Want)
	// Hears tells whether a board may hear the topic of an object, by its name in hex.
	Hears(tenant, board, tree string) bool
	// Room is told that a board of which [ErrBusy] was said takes pieces again.
	Room(tenant, board string)
}

// Stats are counters since the start.
type Stats struct {
	Pieces uint64 // handed to boards' connections
	Bytes  uint64 // of them, with topic and header
	Left   uint64 // pieces that a board was left out of: it had not taken those before
}

// Hall knows who hears what. It is a hook of the broker, whose clients are called
// TENANT/BOARD/SERIAL.
type Hall struct {
	mqtt.HookBase
	objects Objects
	writers *run.Group
	n       struct{ pieces, bytes, left atomic.Uint64 }

	mu      sync.Mutex
	lanes   map[string]*lane          // by client
	boards  map[[2]string]*lane       // the newest that hears ota/c, by tenant and board
	hearing map[string]map[*lane]bool // by the topic of an object
}

// lane is the way to one client.
type lane struct {
	tenant, board string
	client        *mqtt.Client
	objects       []string // topics that it hears, a few; under the hall's mutex

	mu      sync.Mutex
	queue   [][]byte // whole packets
	writing bool     // somebody writes them
	told    bool     // somebody was told that it is full
}

// New makes a hall; nil: nobody has objects, and nobody may hear one.
func New(o Objects) *Hall {
	return &Hall{
		objects: o, writers: run.New(context.Background()),
		lanes: map[string]*lane{}, boards: map[[2]string]*lane{}, hearing: map[string]map[*lane]bool{},
	}
}

// Close waits for the writers, whose connections are closed.
func (h *Hall) Close(grace time.Duration) error {
	h.writers.Stop()
	return h.writers.Wait(grace)
}

// Stats tells the counters.
func (h *Hall) Stats() Stats {
	return Stats{Pieces: h.n.pieces.Load(), Bytes: h.n.bytes.Load(), Left: h.n.left.Load()}
}

// MayHear tells whether a board may subscribe to a topic: that of an object which it may have.
func (h *Hall) MayHear(tenant, board, topic string) bool {
	tree, ok := objectOf(tenant, topic)
	return ok && h.objects != nil && h.objects.Hears(tenant, board, tree)
}

// objectOf gives the object whose topic it is.
func objectOf(tenant, topic string) (tree string, ok bool) {
	tree, ok = strings.CutPrefix(topic, schema.ObjectTopic(tenant, ""))
	if !ok {
		return "", false
	}
	_, err := release.ParseHash(tree)
	return tree, err == nil
}

// ID names the hook.
func (h *Hall) ID() string { return "pieces" }

// Provides tells the broker which calls this hook answers.
func (h *Hall) Provides(b byte) bool {
	return slices.Contains([]byte{mqtt.OnSubscribed, mqtt.OnUnsubscribed, mqtt.OnDisconnect}, b)
}

// OnSubscribed notes what a board hears.
func (h *Hall) OnSubscribed(cl *mqtt.Client, pk packets.Packet, codes []byte) {
	name := strings.SplitN(cl.ID, "/", 3)
	if len(name) != 3 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, f := range pk.Filters {
		own := f.Filter == schema.Topic{Tenant: name[0], Board: name[1], Channel: schema.ChanPiece}.String()
		_, object := objectOf(name[0], f.Filter)
		if codes[i] > 2 || !own && !object {
			continue
		}
		l := h.lanes[cl.ID]
		if l == nil {
			l = &lane{tenant: name[0], board: name[1], client: cl}
			h.lanes[cl.ID] = l
		}
		if own {
			h.boards[[2]string{l.tenant, l.board}] = l
			continue
		}
		if h.hearing[f.Filter] == nil {
			h.hearing[f.Filter] = map[*lane]bool{}
		}
		if !h.hearing[f.Filter][l] {
			h.hearing[f.Filter][l] = true
			l.objects = append(l.objects, f.Filter)
		}
	}
}

// OnUnsubscribed notes what a board hears no more.
func (h *Hall) OnUnsubscribed(cl *mqtt.Client, pk packets.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.lanes[cl.ID]; l != nil {
		for _, f := range pk.Filters {
			h.deafen(l, f.Filter)
		}
	}
}

// OnDisconnect forgets a client.
func (h *Hall) OnDisconnect(cl *mqtt.Client, _ error, _ bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lanes[cl.ID]
	if l == nil {
		return
	}
	delete(h.lanes, cl.ID)
	for len(l.objects) > 0 {
		h.deafen(l, l.objects[0])
	}
	if key := [2]string{l.tenant, l.board}; h.boards[key] == l {
		delete(h.boards, key)
	}
}

// deafen takes a client off those that hear an object. The caller holds the mutex.
func (h *Hall) deafen(l *lane, topic string) {
	l.objects = slices.DeleteFunc(l.objects, func(o string) bool { return o == topic })
	if delete(h.hearing[topic], l); len(h.hearing[topic]) == 0 {
		delete(h.hearing, topic)
	}
}

// SendPiece sends a board a piece, an encoded [ota.Down], with QoS 0: nothing says that it
// arrives. [ErrAway] where it hears none; [ErrBusy] where it has not taken those before:
// Objects.Room is called when it has.
func (h *Hall) SendPiece(tenant, board string, payload []byte) error {
	h.mu.Lock()
	l := h.boards[[2]string{tenant, board}]
	h.mu.Unlock()
	if l == nil {
		return fmt.Errorf("board %s: %w", board, ErrAway)
	}
	p, err := packet(schema.Topic{Tenant: tenant, Board: board, Channel: schema.ChanPiece}.String(), payload)
	if err != nil {
		return err
	}
	if !h.push(l, p, true) {
		return fmt.Errorf("board %s: %w", board, ErrBusy)
	}
	return nil
}

// Hearing counts the boards that hear an object, and those of them that have not taken
// what was sent to them before.
func (h *Hall) Hearing(tenant, tree string) (all, busy int) {
	for _, l := range h.hearers(tenant, tree) {
		if all++; l.full() {
			busy++
		}
	}
	return all, busy
}

func (h *Hall) hearers(tenant, tree string) []*lane {
	topic := schema.ObjectTopic(tenant, tree)
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*lane, 0, len(h.hearing[topic]))
	for l := range h.hearing[topic] {
		out = append(out, l)
	}
	return out
}

// Cast sends an encoded [ota.Down] with QoS 0 to all boards that hear an object and may
// still do so. A board that has not taken what was sent before is left out.
func (h *Hall) Cast(tenant, tree string, payload []byte, may func(board string) bool) (sent, left int, err error) {
	p, err := packet(schema.ObjectTopic(tenant, tree), payload)
	if err != nil {
		return 0, 0, err
	}
	for _, l := range h.hearers(tenant, tree) {
		switch {
		case !may(l.board):
		case h.push(l, p, false):
			sent++
		default:
			left++
		}
	}
	return sent, left, nil
}

// packet makes a PUBLISH of QoS 0. The broker would copy it twice for each who hears it.
func packet(topic string, payload []byte) ([]byte, error) {
	if len(payload) == 0 || len(payload) > schema.MaxPayload {
		return nil, fmt.Errorf("send %d bytes on %s, wants 1 to %d", len(payload), topic, schema.MaxPayload)
	}
	rest := 2 + len(topic) + len(payload)
	p := make([]byte, 0, 5+rest)
	p = append(p, packets.Publish<<4)
	p = binary.AppendUvarint(p, uint64(rest)) // MQTT writes a length the same way
	p = binary.BigEndian.AppendUint16(p, uint16(len(topic)))
	p = append(p, topic...)
	return append(p, payload...), nil
}

func (l *lane) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) >= maxQueue
}

// push has a packet written after those before it; false where too many wait, and then
// Room is called where tell says so.
func (h *Hall) push(l *lane, p []byte, tell bool) bool {
	l.mu.Lock()
	if len(l.queue) >= maxQueue {
		l.told = l.told || tell
		l.mu.Unlock()
		h.n.left.Add(1)
		return false
	}
	l.queue = append(l.queue, p)
	start := !l.writing
	l.writing = true
	l.mu.Unlock()
	if start {
		h.writers.Go("pieces", func(context.Context) error { h.write(l); return nil })
	}
	return true
}

// next takes what is to be written; nil where nothing is, and then nobody writes.
func (l *lane) next() (p []byte, told bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.writing = false
		return nil, false
	}
	p, told = l.queue[0], l.told
	l.queue, l.told = slices.Delete(l.queue, 0, 1), false
	return p, told
}

// write writes what waits for a client, until nothing does. Between two pieces the broker
// has its turn.
func (h *Hall) write(l *lane) {
	for p, told := l.next(); p != nil; p, told = l.next() {
		if told {
			h.objects.Room(l.tenant, l.board)
		}
		l.client.Lock()
		n, err := l.client.Net.Conn.Write(p)
		l.client.Unlock()
		if err != nil {
			l.client.Stop(err) // part of a packet may be on the line
		}
		h.n.pieces.Add(1)
		h.n.bytes.Add(uint64(n))
	}
}

// Shallow keeps what waits of a connection in the boards' lanes and the broker's queue, and
// not in the kernel.
func Shallow(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		// Best effort: without it words wait behind a deeper queue.
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent)
		})
	}
}
