// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package flights

import (
	"slices"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/internal/suspect"
	"fulmar/schema"
)

// reserve is the part of the window that only alarms use, so that they do not wait
// for room: a sixteenth.
const reserve = 16

// Window is what is in flight. Its two bounds are the only send buffer: the spool
// is the queue. It may be used by several goroutines.
type Window struct {
	messages, bytes int // bounds

	Flights chan *Flight  // in the order of sending; its capacity is the bound, so sends never wait
	Freed   chan struct{} // there may be room
	Pieces  chan struct{} // the last piece of a picture has arrived

	mu   sync.Mutex
	open []*Flight // in the order of sending
	used int       // bytes
	// alone is the record that is tried alone; nil where none is.
	alone *suspect.Record
}

// New makes a window of so many messages and bytes.
func New(messages, bytes int) *Window {
	return &Window{
		messages: messages, bytes: bytes, Flights: make(chan *Flight, messages),
		Freed: make(chan struct{}, 1), Pieces: make(chan struct{}, 1),
	}
}

// Enter takes room for a flight; false when there is none. A message that is
// larger than the whole window goes alone.
func (w *Window) Enter(f *Flight) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	messages, bytes := w.messages, w.bytes
	if !f.Alarm() {
		messages, bytes = messages-messages/reserve, bytes-bytes/reserve
	}
	if len(w.open) >= messages || w.used > 0 && w.used+f.Bytes > bytes {
		return false
	}
	w.used += f.Bytes
	w.open = append(w.open, f)
	if f.Pic != nil {
		f.Pic.flying++
	}
	return true
}

// Sent notes the client's token of a flight that has entered.
func (w *Window) Sent(f *Flight, t mqtt.Token) {
	w.mu.Lock()
	f.token = t
	w.mu.Unlock()
	w.Flights <- f
}

// Token gives the client's token of a flight that was sent.
func (w *Window) Token(f *Flight) mqtt.Token {
	w.mu.Lock()
	defer w.mu.Unlock()
	return f.token
}

// Leave gives a flight's room back and tells how many are left.
func (w *Window) Leave(f *Flight) int {
	w.mu.Lock()
	w.used -= f.Bytes
	if i := slices.Index(w.open, f); i >= 0 {
		w.open = slices.Delete(w.open, i, i+1)
	}
	landed := false
	if f.Pic != nil {
		f.Pic.flying--
		landed = f.Pic.flying == 0
	}
	n := len(w.open)
	w.mu.Unlock()
	Poke(w.Freed)
	if landed {
		Poke(w.Pieces)
	}
	return n
}

// InFlight counts messages.
func (w *Window) InFlight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.open)
}

// Landed tells whether nothing of a picture is in flight.
func (w *Window) Landed(p *Picture) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return p.flying == 0
}

// Trying notes the record that is tried alone.
func (w *Window) Trying(r *suspect.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alone = r
}

// Left tells, of a connection that has ended, the first message that was handed to
// the client and has no PUBACK, whether a later one has, what was tried alone, and
// what is open.
func (w *Window) Left() (oldest *suspect.Message, overtaken bool, alone *suspect.Record, open []*Flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.open {
		switch {
		case f.token == nil:
		case f.acknowledged():
			overtaken = overtaken || oldest != nil
		case oldest == nil:
			m := f.Message()
			oldest = &m
		}
	}
	return oldest, overtaken, w.alone, slices.Clone(w.open)
}

// First tells when the oldest message without a PUBACK was handed to the client; false
// where there is none.
func (w *Window) First() (order uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.open {
		if f.token != nil && !f.acknowledged() {
			return f.Order, true
		}
	}
	return 0, false
}

// Covered marks what an acknowledgement of the fleet names.
func (w *Window) Covered(a *schema.Ack) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.open {
		if f.Class != a.Class || f.Epoch != a.Epoch || len(f.left) == 0 {
			continue
		}
		if f.left = Subtract(f.left, a.Ranges); len(f.left) == 0 {
			close(f.Fleet)
		}
	}
}

// Poke signals without waiting; c has room for one signal.
func Poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
