// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"fulmar/schema"
)

// packBytes is how much of records one message takes: what is left of a payload
// after the envelope.
const packBytes = schema.MaxPayload - 1<<10

// recordCost is the envelope's share of each record: number, lengths.
const recordCost = 16

// weights share the line between the classes that are not alarms; alarms go first
// always. Events are what the board is for, metrics are small, pictures can wait.
var weights = [schema.NumClasses]int64{schema.ClassEvent: 4, schema.ClassMetric: 2, schema.ClassSnapshot: 1}

// lane is where the publisher stands in a class.
type lane struct {
	next    uint64 // number to read from
	backlog uint64 // numbers up to here were made before this connection
	due     int64  // place in the queue of classes, see publisher.at
}

// publisher sends what the spool holds. It belongs to one goroutine.
type publisher struct {
	*gen
	lanes [schema.NumClasses]lane
	// at is the place up to which the classes were served: bytes over weight. A
	// class that had nothing to send for long begins here, not where it stopped,
	// or it would have the line for itself until it caught up.
	at  int64
	pic *picture // on its way; the class waits for it
}

// publish sends what the spool holds, within the window, until the context ends
// or the connection is lost.
func (g *gen) publish(ctx context.Context) error {
	defer close(g.quiet)
	p := &publisher{gen: g}
	defer p.closePicture()
	for _, c := range g.s.out.Cursors() {
		p.lanes[c.Class] = lane{next: c.Acked + 1, backlog: c.Last}
	}
	for ctx.Err() == nil && !g.abandoned() {
		sent, err := p.sendOne(ctx)
		if err != nil {
			return err
		}
		if sent {
			g.takeIn()
			continue
		}
		select {
		case <-ctx.Done():
		case <-g.lost:
		case <-g.s.out.Wake():
		case <-g.pieces:
		case m := <-g.in:
			g.take(m)
		}
	}
	g.drain()
	return nil
}

// takeIn takes what came in without waiting.
func (g *gen) takeIn() {
	for {
		select {
		case m := <-g.in:
			g.take(m)
		default:
			return
		}
	}
}

// drain waits a little for what is in flight, on a stop.
func (g *gen) drain() {
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	for g.inFlight() > 0 {
		select {
		case <-timer.C:
			return
		case <-g.lost:
			return
		case <-g.freed:
		case m := <-g.in:
			g.take(m)
		}
	}
}

// sendOne deals with one message of the class whose turn it is; false when there
// is nothing to send now.
func (p *publisher) sendOne(ctx context.Context) (bool, error) {
	var tried [schema.NumClasses]bool
	for c, ok := p.turn(&tried); ok; c, ok = p.turn(&tried) {
		tried[c] = true
		step := p.sendRecords
		if c == schema.ClassSnapshot {
			step = p.sendPicture
		}
		done, size, err := step(ctx, c)
		if err != nil {
			return false, err
		}
		if !done {
			continue
		}
		p.served(c, size)
		return true, nil
	}
	return false, nil
}

// served moves a class back in the queue by what it had.
func (p *publisher) served(c schema.Class, size int) {
	if w := weights[c]; w > 0 {
		p.at = max(p.at, p.lanes[c].due)
		p.lanes[c].due = p.at + int64(size)/w
	}
}

// turn picks the class to look at: alarms, then the one whose place is first.
func (p *publisher) turn(tried *[schema.NumClasses]bool) (schema.Class, bool) {
	if !tried[schema.ClassAlarm] {
		return schema.ClassAlarm, true
	}
	best, found := schema.Class(0), false
	for c := schema.ClassEvent; c < schema.NumClasses; c++ {
		if !tried[c] && (!found || max(p.lanes[c].due, p.at) < max(p.lanes[best].due, p.at)) {
			best, found = c, true
		}
	}
	return best, found
}

// sendRecords publishes the next message of a class; done is false when there is
// none or the context ended.
func (p *publisher) sendRecords(ctx context.Context, c schema.Class) (done bool, size int, err error) {
	recs, err := p.read(c, schema.MaxRecords)
	if err != nil || len(recs) == 0 {
		return false, 0, err
	}
	n := pack(recs)
	if n == 0 {
		return true, 0, p.refuse(recs[0], schema.ReasonOversize)
	}
	return p.sendMessage(ctx, recs[:n], nil)
}

func (p *publisher) read(c schema.Class, limit int) ([]schema.Stored, error) {
	recs, err := p.s.out.Read(c, p.lanes[c].next, limit, packBytes)
	if err != nil {
		return nil, fmt.Errorf("read %s records from the spool: %w", c, err)
	}
	return recs, nil
}

// sendable tells whether a record may be part of a message at all.
func sendable(r schema.Stored) bool {
	return len(r.Payload) > 0 && len(r.Payload) <= schema.MaxRecord
}

// pack tells how many of the records fit into one message; none where the first
// can be in no message.
func pack(recs []schema.Stored) (n int) {
	size := 0
	for n < len(recs) && n < schema.MaxRecords && sendable(recs[n]) && recs[n].Epoch == recs[0].Epoch {
		if size += len(recs[n].Payload) + recordCost; n > 0 && size > packBytes {
			break
		}
		n++
	}
	return n
}

// sendMessage publishes records as one message; with them goes what they say of a
// picture. False when the context ended first.
func (p *publisher) sendMessage(ctx context.Context, recs []schema.Stored, pic *picture) (bool, int, error) {
	l := &p.lanes[recs[0].Class]
	m := schema.Message{
		V: schema.Version, Board: p.s.cfg.Board, Class: recs[0].Class, Epoch: recs[0].Epoch,
		Sent: p.s.cfg.Clock.Now(), Replay: recs[len(recs)-1].Seq <= l.backlog,
		Records: make([]schema.SeqRecord, 0, len(recs)),
	}
	_, _ = rand.Read(m.Trace[:])
	f := &flight{class: m.Class, epoch: m.Epoch, pic: pic}
	for _, r := range recs {
		m.Records = append(m.Records, schema.SeqRecord{Seq: r.Seq, Payload: r.Payload})
		f.add(r.Seq)
	}
	if p.mode == schema.AckFleet {
		f.fleet, f.left = make(chan struct{}), append([]span(nil), f.runs...)
	}
	payload, err := schema.Encode(&m)
	if err != nil {
		// Each record was looked at and the message was measured: only numbers that
		// do not rise get here, and they are no reason to drop anything.
		return false, 0, fmt.Errorf("message of %d records of class %s from %d on: %w", len(recs), m.Class, recs[0].Seq, err)
	}
	ok, err := p.launch(ctx, f, schema.MessageTopic(p.s.cfg.Tenant, p.s.cfg.Board, m.Class).String(), payload)
	if err != nil || !ok {
		return false, 0, err
	}
	l.next = recs[len(recs)-1].Seq + 1
	p.s.published(recs)
	return true, len(payload), nil
}

// refuse settles a record that can never be sent. Where the spool cannot do that,
// the record stays and is passed over in this generation.
func (p *publisher) refuse(r schema.Stored, why schema.Reason) error {
	p.skip(r)
	p.s.cfg.Log.Error("record can never be sent", "class", r.Class.String(), "seq", r.Seq, "reason", why.String(), "bytes", len(r.Payload))
	if f, ok := p.s.out.(Refuser); ok {
		if err := f.Refuse(r.Class, r.Epoch, r.Seq, why); err != nil {
			return fmt.Errorf("write record %d of class %s into the loss ledger: %w", r.Seq, r.Class, err)
		}
	}
	return nil
}

// skip passes a record over in this generation.
func (p *publisher) skip(r schema.Stored) {
	p.lanes[r.Class].next = r.Seq + 1
	p.s.count(func(st *Status) { st.Refused++ })
}

// launch publishes within the window; false when the context ended first.
func (p *publisher) launch(ctx context.Context, f *flight, topic string, payload []byte) (bool, error) {
	f.bytes = len(payload)
	for !p.enter(f) {
		select {
		case <-ctx.Done():
			return false, nil
		case <-p.lost:
			return false, p.why
		case <-p.freed:
		case m := <-p.in:
			p.take(m)
		}
	}
	f.token = p.client.Publish(topic, 1, false, payload)
	n := p.inFlight()
	p.s.count(func(st *Status) { st.InFlight = n })
	p.flights <- f // its capacity is the window, so this never waits
	return true, nil
}
