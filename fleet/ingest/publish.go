// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"errors"
	"fmt"

	"fulmar/fleet/ingest/book"
	"fulmar/fleet/ingest/reading"
	"fulmar/fleet/ingest/reports"

	"fulmar/schema"
)

// Publish takes the payload of one PUBLISH of an enrolled board, whose tenant and
// board are those of its certificate, and returns once it is durable. Where the
// payload holds records, ack names them for boards that wait for the fleet's own
// word. An error means that nothing was kept and the board must send again, one that
// is [ErrNewer] that it must wait for the fleet's update; what can never be
// understood is taken, see the package comment, and refused is true.
func (in *Ingest) Publish(ctx context.Context, key BoardKey, topic string, payload []byte) (ack *schema.Ack, refused bool, err error) {
	select {
	case <-in.ready: // before that the sweep might take a new picture for a stray one
	case <-in.stopped:
		return nil, false, ErrStopped
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	ack, err = in.publish(ctx, key, topic, payload)
	var bad errRefused
	if errors.As(err, &bad) {
		err = in.unread(ctx, key, topic, payload, bad)
		return reading.Ack(bad.of), true, err
	}
	return ack, false, err
}

func (in *Ingest) publish(ctx context.Context, key BoardKey, topic string, payload []byte) (*schema.Ack, error) {
	t, err := schema.ParseTopic(topic)
	if err != nil {
		return nil, errRefused{why: err}
	}
	if t.Tenant != key.Tenant || t.Board != key.Board {
		return nil, refuse("topic of another board")
	}
	if v, newer := schema.Newer(payload); newer {
		return nil, in.Newer(ctx, key, v)
	}
	switch t.Channel {
	case schema.ChanStream, schema.ChanEvent:
		return in.message(ctx, key, t, payload)
	case schema.ChanBlob:
		return nil, in.chunk(key, t.Tail, payload)
	}
	return nil, refuse("channel %s takes no records", t.Channel)
}

// decoded is one record, understood or not.
type decoded struct {
	seq     uint64
	rec     *schema.Record
	bad     error // why it can never be understood
	size    int
	picture bool // a snapshot whose blob is whole
}

func (in *Ingest) message(ctx context.Context, key BoardKey, t schema.Topic, payload []byte) (*schema.Ack, error) {
	m, err := reading.Message(t, payload)
	if err != nil {
		return nil, errRefused{err, m}
	}
	recs := make([]decoded, len(m.Records))
	samples := true
	for i, r := range m.Records {
		recs[i] = in.decode(key, m.Class, r)
		samples = samples && recs[i].bad == nil && recs[i].rec.Kind == schema.KindSamples
	}
	topic := t.String()
	err = in.await(&job{ctx: ctx, key: key, samples: samples, done: make(chan error, 1), apply: func(x *txn) error {
		x.n.messages++
		return x.records(key, topic, m, recs)
	}})
	if err != nil {
		return nil, err
	}
	return reading.Ack(m), nil
}

// decode reads one record and, for a picture, sees to its blob. The blob work is
// repeatable: a message sent twice finds it done.
func (in *Ingest) decode(key BoardKey, c schema.Class, r schema.SeqRecord) decoded {
	d := decoded{seq: r.Seq, size: len(r.Payload)}
	if r.Seq > book.MaxSeq {
		d.bad = fmt.Errorf("%w: %d", book.ErrBadNumber, r.Seq)
		return d
	}
	d.rec, d.bad = schema.DecodeRecord(r.Payload)
	if d.bad != nil {
		return d
	}
	if d.rec.Kind == schema.KindGap && d.rec.Gap.Last > book.MaxSeq {
		d.bad = fmt.Errorf("%w: gap to %d", book.ErrBadNumber, d.rec.Gap.Last)
	}
	if s := d.rec.Snapshot; s != nil && d.bad == nil {
		whole, err := in.blobs.Complete(key.Tenant, key.Board, s.Name, s.Size, s.SHA256)
		if err != nil {
			in.log.Warn("picture not complete", "board", key.Board, "error", err.Error())
		}
		d.picture = whole
	}
	return d
}

// Hello takes a board's first message of a connection.
func (in *Ingest) Hello(ctx context.Context, key BoardKey, h *schema.Hello) error {
	facts, err := factsJSON(h.Facts)
	if err != nil {
		return fmt.Errorf("encode facts: %w", err)
	}
	return in.submit(ctx, key, func(x *txn) error {
		b, err := x.board(key)
		if err != nil {
			return err
		}
		x.n.messages++
		if err := x.exec(`UPDATE board SET release = ?, facts = ? WHERE id = ?`, h.Release, facts, b.id); err != nil {
			return fmt.Errorf("keep hello: %w", err)
		}
		if err := x.heardFrom(b, h.Now); err != nil {
			return err
		}
		for _, c := range h.Cursors {
			if c.Last == 0 {
				continue
			}
			e, err := x.cache.shelf.Book(x, b.id, c.Class, c.Epoch, x.now)
			if err != nil {
				return err
			}
			e.Hear(c.Last)
		}
		b.seen(x.now)
		b.worded, b.cursors = 0, h.Cursors
		if err := reports.Understood(x, b.id, x.now); err != nil {
			return err
		}
		return x.freed(b)
	})
}

// CheckHello tells what is wrong with a Hello of the board.
func CheckHello(key BoardKey, h *schema.Hello) error { return reading.Hello(key.Board, h) }

// Presence notes that a board has come or gone. Word of an older connection than
// the newest is ignored: a will may arrive long after its board is back.
func (in *Ingest) Presence(ctx context.Context, key BoardKey, p schema.Presence) error {
	return in.submit(ctx, key, func(x *txn) error {
		b, err := x.board(key)
		if err != nil {
			return err
		}
		stale := b.boot == p.Boot && p.Conn < b.conn
		if !p.Online {
			stale = stale || b.boot != p.Boot
		}
		if stale {
			return nil
		}
		b.online, b.boot, b.conn = p.Online, p.Boot, p.Conn
		if p.Online {
			b.seen(x.now)
		}
		return x.exec(`UPDATE board SET online = ?1, boot = ?2, conn = ?3,
  online_since = CASE WHEN online <> ?1 THEN ?4 ELSE online_since END WHERE id = ?5`,
			p.Online, int64(p.Boot), int64(p.Conn), x.now, b.id)
	})
}
