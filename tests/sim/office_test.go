// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"sync"
	"time"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// office is what stands in a foreign broker between a board and the fleet. MQTT keeps
// the order only of what one publisher says on one topic (3.1.1, section 4.6). So here
// classes overtake each other, pieces of a picture their index, records the hello, and
// boards each other, by seconds; a message may come twice; and what the broker has
// acknowledged and not yet delivered dies with it.
//
// Over two connections of a board it keeps no order at all, as a cluster whose nodes
// have one each need not.
//
// Not simulated, as it cannot be: another order within one topic and connection, and
// acknowledgements of the broker in another order than the messages (4.6.0-2).
type office struct {
	w  *world
	at *linktest.Broker

	mu    sync.Mutex
	conns map[string]int     // connections of each board
	last  map[line]time.Time // when the newest message of each goes out
}

// line is what keeps its order.
type line struct {
	topic string
	conn  int
}

func newOffice(w *world, at *linktest.Broker) *office {
	return &office{w: w, at: at, conns: map[string]int{}, last: map[line]time.Time{}}
}

func (o *office) post(tp schema.Topic, payload []byte) {
	topic := tp.String()
	wait, twice := time.Duration(0), false
	if !o.w.quiet.Load() {
		switch n := o.w.fates.draw(100, "post", topic, payload); {
		case n < 5:
			wait = time.Duration(o.w.fates.draw(20_000, "long", topic, payload)) * time.Millisecond
		case n < 50:
			wait = time.Duration(o.w.fates.draw(2_000, "short", topic, payload)) * time.Millisecond
		case n >= 97:
			twice = true
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if tp.Channel == schema.ChanHello {
		o.conns[tp.Board]++
	}
	l, at := line{topic, o.conns[tp.Board]}, time.Now().Add(wait)
	if next := o.last[l].Add(time.Microsecond); at.Before(next) { // one goes after the other
		at = next
	}
	o.last[l] = at
	time.AfterFunc(time.Until(at), func() {
		if o.w.broker.Load() != o.at {
			return // it died meanwhile
		}
		for range 2 {
			if err := o.at.Publish(topic, payload); err != nil {
				o.w.t.Errorf("deliver on %s: %v", topic, err)
			}
			if !twice {
				return
			}
		}
	})
}
