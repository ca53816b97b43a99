// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/rand"
	"fmt"

	"fulmar/link/internal/flights"
	"fulmar/link/internal/lanes"
	"fulmar/link/outbox"
	"fulmar/schema"
)

const (
	// packBytes is how much of records one message takes at most: what is left of a
	// payload after the envelope.
	packBytes = schema.MaxPayload - 1<<10
	// packLeast is how much on a slow line, where a larger message would hold up what
	// comes behind it; several of them are in flight then.
	packLeast = 4 << 10
)

// room is how many bytes of records the next message takes: a quarter of what the
// pace lets be in flight.
func (p *publisher) room() int {
	return p.s.suspects.Pack(min(max(p.pace.Limit()/4, packLeast), packBytes))
}

// sendRecords publishes the next message of a lane; done is false when there is
// none or the context ended.
func (p *publisher) sendRecords(ctx context.Context, l *lanes.Lane) (done bool, size int, err error) {
	room := p.room()
	recs, err := p.read(l, schema.MaxRecords, room)
	if err != nil || len(recs) == 0 {
		return false, 0, err
	}
	n := lanes.Pack(recs, room)
	if n == 0 {
		return true, 0, p.refuse(l, recs[0], schema.ReasonOversize)
	}
	return p.sendMessage(ctx, l, recs[:n], nil)
}

// sendMessage publishes records as one message; with them goes what they say of a
// picture. False when the context ended first.
func (p *publisher) sendMessage(ctx context.Context, l *lanes.Lane, recs []schema.Stored, pic *picture) (bool, int, error) {
	m := schema.Message{
		V: schema.Version, Board: p.s.cfg.Board, Class: l.Class, Epoch: l.Epoch,
		Sent: p.s.cfg.Clock.Now(), Replay: l.Side == lanes.Backlog,
		Records: make([]schema.SeqRecord, 0, len(recs)),
	}
	_, _ = rand.Read(m.Trace[:])
	f := &flights.Flight{Class: m.Class, Epoch: m.Epoch}
	if pic != nil {
		f.Pic = &pic.Picture
	}
	for _, r := range recs {
		m.Records = append(m.Records, schema.SeqRecord{Seq: r.Seq, Payload: r.Payload})
		f.Add(r.Seq)
	}
	if p.mode == schema.AckFleet {
		f.AwaitFleet()
	}
	payload, err := schema.EncodeMessage(&m)
	if err != nil {
		// Each record was looked at and the message was measured: only numbers that
		// do not rise get here, and they are no reason to drop anything.
		return false, 0, fmt.Errorf("message of %d records of class %s from %d on: %w", len(recs), m.Class, recs[0].Seq, err)
	}
	// Whoever is let in while this one waits for room must not send it again.
	l.Next = recs[len(recs)-1].Seq + 1
	ok, err := p.launch(ctx, f, schema.MessageTopic(p.s.cfg.Tenant, p.s.cfg.Board, m.Class).String(), payload)
	if err != nil || !ok {
		return false, 0, err
	}
	p.s.published(f)
	return true, len(payload), nil
}

// refuse settles a record that can never be sent. Where the spool cannot do that,
// the record stays and is passed over in this generation.
func (p *publisher) refuse(l *lanes.Lane, r schema.Stored, why schema.Reason) error {
	p.skip(l, r)
	p.s.cfg.Log.Error("record can never be sent", "class", r.Class.String(), "seq", r.Seq, "reason", why.String(), "bytes", len(r.Payload))
	if f, ok := p.s.out.(Refuser); ok {
		if err := f.Refuse(r.Class, r.Epoch, r.Seq, why); err != nil {
			return fmt.Errorf("write record %d of class %s into the loss ledger: %w", r.Seq, r.Class, err)
		}
	}
	return nil
}

// skip passes a record over in this generation.
func (p *publisher) skip(l *lanes.Lane, r schema.Stored) {
	l.Next = r.Seq + 1
	p.s.count(func(st *Status) { st.Refused++ })
}

// launch publishes within the window; false when the context ended first. Alarms
// overtake what waits for room here.
func (p *publisher) launch(ctx context.Context, f *flights.Flight, topic string, payload []byte) (bool, error) {
	f.Bytes = len(payload)
	for !p.Enter(f) {
		select {
		case <-ctx.Done():
			return false, nil
		case <-p.lost:
			return false, p.why
		case <-p.Freed:
		case <-p.s.out.Wake():
			p.woken()
		case m := <-p.in:
			if err := p.take(m); err != nil {
				return false, err
			}
		}
		if !f.Alarm() && p.alone == nil && p.ahead < alarmBurst {
			if _, err := p.sendAlarm(ctx); err != nil {
				return false, err
			}
		}
	}
	p.s.claims.Out(f)
	f.Order = p.order.Add(1)
	token := p.client.Publish(topic, 1, false, payload)
	if p.abandoned() { // it may have been stuck in there; the session has gone on
		return false, p.why
	}
	n := p.InFlight()
	p.s.count(func(st *Status) { st.InFlight = n })
	p.Sent(f, token)
	return true, nil
}

// read gives the next records of a lane, without those that are held back.
func (p *publisher) read(l *lanes.Lane, limit, bytes int) ([]schema.Stored, error) {
	skip := p.s.suspects.Skip
	if l == p.alone { // what is tried alone is a suspect
		skip = nil
	}
	recs, err := l.Fetch(skip, func(from uint64) ([]schema.Stored, error) {
		return outbox.ReadEpoch(p.s.out, l.Class, l.Epoch, from, limit, bytes)
	})
	if err != nil {
		return nil, fmt.Errorf("read %s records from the spool: %w", l.Class, err)
	}
	return recs, nil
}
