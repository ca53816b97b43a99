// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"context"
	"errors"
	"fmt"

	"fulmar/fleet/ingest/book"

	"fulmar/schema"
)

const (
	maxFacts   = 32   // facts in a Hello
	maxCursors = 64   // cursors in a Hello: classes times a few epochs
	maxRefused = 1000 // rows kept of what was refused
	maxReports = 256  // subjects of one board
	maxSources = 128  // cameras and rules of one board
	maxGaps    = 1000 // gap rows kept of one board; the books keep the sums
)

// errRefused marks what will never be understood; the text is stored with it.
type errRefused struct{ why error }

func (e errRefused) Error() string { return e.why.Error() }

func refuse(format string, args ...any) error { return errRefused{fmt.Errorf(format, args...)} }

// Publish takes the payload of one PUBLISH of an enrolled board, whose tenant and
// board are those of its certificate, and returns once it is durable. Where the
// payload holds records, ack names them for boards that wait for the fleet's own
// word. An error means that nothing was kept and the board must send again; what
// can never be understood is taken, see the package comment, and refused is true.
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
		return nil, true, in.refuse(ctx, key, topic, len(payload), bad.why)
	}
	return ack, false, err
}

func (in *Ingest) publish(ctx context.Context, key BoardKey, topic string, payload []byte) (*schema.Ack, error) {
	t, err := schema.ParseTopic(topic)
	if err != nil {
		return nil, errRefused{err}
	}
	if t.Tenant != key.Tenant || t.Board != key.Board {
		return nil, refuse("topic of another board")
	}
	switch t.Channel {
	case schema.ChanStream, schema.ChanEvent:
		return in.message(ctx, key, t, payload)
	case schema.ChanBlob:
		return nil, in.chunk(key, t.Tail, payload)
	}
	return nil, refuse("channel %s takes no records", t.Channel)
}

// refuse keeps the proof that something could not be understood.
func (in *Ingest) refuse(ctx context.Context, key BoardKey, topic string, size int, why error) error {
	return in.submit(ctx, key, func(x *txn) error { return x.refuse(key, topic, size, why) })
}

func (x *txn) refuse(key BoardKey, topic string, size int, why error) error {
	x.n.refused++
	text := why.Error()
	err := x.exec(`INSERT INTO refused (tenant, board, topic, reason, size, at) VALUES (?, ?, ?, ?, ?, ?)`,
		key.Tenant, key.Board, clip(topic, 256), clip(text, schema.MaxText), size, x.now)
	if err != nil {
		return fmt.Errorf("note what was refused: %w", err)
	}
	return x.exec(`DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?`, maxRefused)
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
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
	m := new(schema.Message)
	if err := schema.Decode(payload, m); err != nil {
		return nil, errRefused{err}
	}
	if m.Board != key.Board {
		return nil, refuse("message names another board")
	}
	if t.Channel == schema.ChanStream != (m.Class == schema.ClassMetric) ||
		t.Channel == schema.ChanEvent && t.Tail != m.Class.String() {
		return nil, refuse("message of class %s on the topic of another", m.Class)
	}
	recs := make([]decoded, len(m.Records))
	for i, r := range m.Records {
		recs[i] = in.decode(key, m.Class, r)
	}
	topic := t.String()
	err := in.submit(ctx, key, func(x *txn) error {
		x.n.messages++
		return x.records(key, topic, m, recs)
	})
	if err != nil {
		return nil, err
	}
	return ackOf(m), nil
}

// ackOf names all records of a message, refused ones too: they are dealt with.
func ackOf(m *schema.Message) *schema.Ack {
	a := &schema.Ack{V: schema.Version, Class: m.Class, Epoch: m.Epoch}
	for _, r := range m.Records {
		if n := len(a.Ranges); n > 0 && a.Ranges[n-1][1]+1 == r.Seq {
			a.Ranges[n-1][1] = r.Seq
		} else {
			a.Ranges = append(a.Ranges, [2]uint64{r.Seq, r.Seq})
		}
	}
	return a
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
		return nil
	})
}

// CheckHello tells what is wrong with a Hello of the board.
func CheckHello(key BoardKey, h *schema.Hello) error {
	switch {
	case h.V == 0 || h.V > schema.Version:
		return fmt.Errorf("hello of wire version %d, this program reads up to %d", h.V, schema.Version)
	case h.Board != key.Board:
		return errors.New("hello names another board")
	case len(h.Release) > schema.MaxName || len(h.Facts) > maxFacts || len(h.Cursors) > maxCursors:
		return fmt.Errorf("hello with %d facts and %d cursors, at most %d and %d", len(h.Facts), len(h.Cursors), maxFacts, maxCursors)
	}
	for k, v := range h.Facts {
		if len(k) > schema.MaxName || len(v) > 4*schema.MaxName {
			return errors.New("hello with a fact that is too long")
		}
	}
	for _, c := range h.Cursors {
		if c.Class >= schema.NumClasses || c.Last > book.MaxSeq {
			return errors.New("hello with a cursor that can not be")
		}
	}
	return nil
}

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
