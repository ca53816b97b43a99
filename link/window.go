// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"slices"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/schema"
)

// span is a range of numbers, both inclusive.
type span = [2]uint64

// flight is a message that was published and not acknowledged yet.
type flight struct {
	token mqtt.Token
	bytes int
	class schema.Class
	epoch uint64
	runs  []span   // numbers of its records, in runs without holes; none for a piece of a picture
	left  []span   // of those, what the fleet has not acknowledged (mode fleet)
	pic   *picture // the picture it is a piece or the index of
	fleet chan struct{}
}

// add notes the next record's number.
func (f *flight) add(seq uint64) {
	if n := len(f.runs); n > 0 && f.runs[n-1][1]+1 == seq {
		f.runs[n-1][1] = seq
		return
	}
	f.runs = append(f.runs, span{seq, seq})
}

// records is how many records the flight carries.
func (f *flight) records() (n uint64) {
	for _, r := range f.runs {
		n += r[1] - r[0] + 1
	}
	return n
}

// window is what is in flight. Its two bounds are the only send buffer: the spool
// is the queue.
type window struct {
	messages, bytes int // bounds

	flights chan *flight // in the order of sending; its capacity is the bound, so sends never wait
	freed   chan struct{}
	pieces  chan struct{} // the last piece of a picture has arrived

	wmu  sync.Mutex
	open []*flight
	used int // bytes
}

func newWindow(messages, bytes int) window {
	return window{
		messages: messages, bytes: bytes, flights: make(chan *flight, messages),
		freed: make(chan struct{}, 1), pieces: make(chan struct{}, 1),
	}
}

// enter takes room for a flight; false when there is none. A message that is
// larger than the whole window goes alone.
func (w *window) enter(f *flight) bool {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if len(w.open) >= w.messages || w.used > 0 && w.used+f.bytes > w.bytes {
		return false
	}
	w.used += f.bytes
	w.open = append(w.open, f)
	if f.pic != nil {
		f.pic.flying++
	}
	return true
}

// leave gives a flight's room back and tells how many are left.
func (w *window) leave(f *flight) int {
	w.wmu.Lock()
	w.used -= f.bytes
	if i := slices.Index(w.open, f); i >= 0 {
		w.open = slices.Delete(w.open, i, i+1)
	}
	landed := false
	if f.pic != nil {
		f.pic.flying--
		landed = f.pic.flying == 0
	}
	n := len(w.open)
	w.wmu.Unlock()
	poke(w.freed)
	if landed {
		poke(w.pieces)
	}
	return n
}

// inFlight counts messages.
func (w *window) inFlight() int {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	return len(w.open)
}

// landed tells whether nothing of a picture is in flight.
func (w *window) landed(p *picture) bool {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	return p.flying == 0
}

// covered marks what an acknowledgement of the fleet names.
func (w *window) covered(a *schema.Ack) {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	for _, f := range w.open {
		if f.class != a.Class || f.epoch != a.Epoch || len(f.left) == 0 {
			continue
		}
		if f.left = subtract(f.left, a.Ranges); len(f.left) == 0 {
			close(f.fleet)
		}
	}
}

// subtract gives what of the rising spans a is not in the rising spans b.
func subtract(a, b []span) []span {
	var out []span
	for _, s := range a {
		i, _ := slices.BinarySearchFunc(b, s[0], func(r span, at uint64) int {
			if r[1] < at {
				return -1
			}
			return 1
		})
		for ; i < len(b) && b[i][0] <= s[1]; i++ {
			if b[i][0] > s[0] {
				out = append(out, span{s[0], b[i][0] - 1})
			}
			if b[i][1] >= s[1] {
				s = span{1, 0}
				break
			}
			s[0] = b[i][1] + 1
		}
		if s[0] <= s[1] {
			out = append(out, s)
		}
	}
	return out
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
