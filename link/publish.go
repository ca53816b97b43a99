// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"time"

	"fulmar/link/internal/lanes"
	"fulmar/link/internal/suspect"
	"fulmar/schema"
)

const (
	// alarmBurst is how many bytes of alarms go strictly before all else. Beyond it,
	// in a flood that does not end, the others get one byte in ten: a rule that fires
	// without end must not make the spool throw away everything else.
	alarmBurst = 256 << 10
	alarmShare = 9 // bytes of alarms in a flood for one of the others
	// probeAfter is how long a connection stands before a record is tried of a class
	// that nothing proves to be taken: it may end it, and alarms with it.
	probeAfter = 5 * time.Minute
	// lookEvery is after how many messages the spool is asked for new epochs, where
	// the publisher is never idle.
	lookEvery = 64
)

// publisher sends what the spool holds. It belongs to one goroutine.
type publisher struct {
	*gen
	lanes lanes.Lanes
	pics  map[*lanes.Lane]*picture // on their way; their lanes wait for them
	ahead int                      // bytes of alarms that went before others that could
	sent  int                      // messages since the spool was asked for its epochs
	began time.Time                // of the connection
	idle  bool                     // nothing was to be sent when it was looked last, and nothing is in flight
	alone *lanes.Lane              // of a record that is tried alone
	nap   time.Duration            // until there is something to do although nothing happens; 0 none
}

// publish sends what the spool holds, within the window, until the context ends
// or the connection is lost.
func (g *gen) publish(ctx context.Context) error {
	defer close(g.quiet)
	p := &publisher{gen: g, lanes: lanes.New(), pics: map[*lanes.Lane]*picture{}, began: time.Now()}
	defer p.closePictures()
	p.lanes.Follow(g.s.out.Cursors(), true)
	for ctx.Err() == nil && !g.abandoned() {
		sent, err := p.sendOne(ctx)
		if err != nil {
			return err
		}
		if err := g.takeIn(); err != nil {
			return err
		}
		if sent {
			continue
		}
		if err := p.rest(ctx); err != nil {
			return err
		}
	}
	g.drain()
	return nil
}

// rest waits until there may be something to send.
func (p *publisher) rest(ctx context.Context) error {
	var nap <-chan time.Time
	if p.nap > 0 {
		t := time.NewTimer(p.nap)
		defer t.Stop()
		nap = t.C
	}
	select {
	case <-ctx.Done():
	case <-p.lost:
	case <-nap:
	case <-p.s.out.Wake():
		p.woken()
	case <-p.Freed:
	case <-p.Pieces:
	case m := <-p.in:
		return p.take(m)
	}
	return nil
}

// woken lets all lanes be read again, new epochs too.
func (p *publisher) woken() {
	p.sent = 0
	p.lanes.Follow(p.s.out.Cursors(), false)
	p.lanes.Stir()
}

// takeIn takes what came in without waiting.
func (g *gen) takeIn() error {
	for {
		select {
		case m := <-g.in:
			if err := g.take(m); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// drain waits a little for what is in flight, on a stop.
func (g *gen) drain() {
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	for g.InFlight() > 0 {
		select {
		case <-timer.C:
			return
		case <-g.lost:
			return
		case <-g.Freed:
		case m := <-g.in:
			if g.take(m) != nil {
				return
			}
		}
	}
}

// sendOne deals with one message; false when there is nothing to send now.
func (p *publisher) sendOne(ctx context.Context) (sent bool, err error) {
	select {
	case <-p.s.out.Wake():
		p.woken()
	default:
		if p.sent++; p.sent > lookEvery {
			p.woken()
		}
	}
	p.nap = 0
	idle := p.InFlight() == 0
	defer func() { p.idle = idle && !sent }()
	if busy, sent, err := p.tryAlone(ctx); busy || err != nil {
		return sent, err
	}
	flood := p.ahead >= alarmBurst
	if !flood {
		if sent, err := p.sendAlarm(ctx); sent || err != nil {
			return sent, err
		}
		p.ahead = 0
	}
	p.paced.Store(true) // before the look: an answer in between must not be missed
	ok, wait := p.pace.Go(time.Now())
	p.paced.Store(!ok)
	if wait > 0 {
		p.nap = wait
	}
	if ok {
		sent, size, err := p.lanes.Other(func(l *lanes.Lane) (bool, int, error) { return p.step(ctx, l) })
		p.ahead -= alarmShare * size
		if sent || err != nil {
			return sent, err
		}
	}
	if flood {
		return p.sendAlarm(ctx)
	}
	return false, nil
}

// sendAlarm sends the next message of alarms. They ask no pace.
func (p *publisher) sendAlarm(ctx context.Context) (bool, error) {
	sent, size, err := p.lanes.Alarm(func(l *lanes.Lane) (bool, int, error) { return p.step(ctx, l) })
	p.ahead += size
	return sent, err
}

// step deals with the next message of a lane; done is false when there is none.
func (p *publisher) step(ctx context.Context, l *lanes.Lane) (done bool, size int, err error) {
	if l != p.alone && p.s.suspects.Blocked(l.Class) {
		return false, 0, nil // one record now and then says when it is over
	}
	if l.Class == schema.ClassSnapshot {
		return p.sendPicture(ctx, l)
	}
	return p.sendRecords(ctx, l)
}

// tryAlone sends a suspect's next record alone: with nothing else in flight, and
// nothing else until its acknowledgement has come. Busy where that is under way.
func (p *publisher) tryAlone(ctx context.Context) (busy, sent bool, err error) {
	w := &p.s.suspects
	if p.alone == nil {
		r, ok := w.Next(p.idle && time.Since(p.began) >= probeAfter)
		if !ok {
			if w.Held() > 0 {
				p.nap = probeAfter // nobody else may wake the publisher
			}
			return false, false, nil
		}
		if p.InFlight() > 0 {
			return true, false, nil
		}
		// What is suspected was made before this connection.
		p.alone = &lanes.Lane{Class: r.Class, Epoch: r.Epoch, Side: lanes.Backlog, Next: r.Seq, Last: r.Seq}
		p.Trying(&r)
	}
	if p.InFlight() > 0 {
		return true, false, nil
	}
	if p.alone.Next <= p.alone.Last {
		done, _, err := p.step(ctx, p.alone)
		if done || err != nil {
			return true, done, err
		}
	}
	r := suspect.Record{Class: p.alone.Class, Epoch: p.alone.Epoch, Seq: p.alone.Last}
	if p.alone.Next > p.alone.Last {
		w.Passed(r)
		p.s.unblock(r.Class)
	} else {
		w.Settled(r) // it is not in the spool any more
	}
	p.alone = nil
	p.Trying(nil)
	return true, true, nil
}
