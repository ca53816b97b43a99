// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

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

// flight is a message that was published and not acknowledged yet.
type flight struct {
	token mqtt.Token
	at    time.Time
	bytes int
	class schema.Class
	epoch uint64
	seqs  []uint64 // of its records; none for a piece of a blob
	blob  string   // removed when this one is acknowledged
	acked []bool   // which of them the fleet has acknowledged (mode fleet)
	left  int      // how many it has not
	fleet chan struct{}
}

// lane is where the publisher stands in a class.
type lane struct {
	next    uint64 // number to read from
	backlog uint64 // numbers up to here were made before this connection
	share   int64  // bytes sent over weight
}

// publish sends what the spool holds, within the window, until the context ends
// or the connection is lost.
func (g *gen) publish(ctx context.Context) error {
	var lanes [schema.NumClasses]lane
	for _, c := range g.s.out.Cursors() {
		lanes[c.Class] = lane{next: c.Acked + 1, backlog: c.Last}
	}
	for {
		sent, err := g.sendOne(ctx, &lanes)
		if err != nil {
			return err
		}
		if sent {
			if err := g.takeIn(); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return g.drain()
		case <-g.lost:
			return g.why
		case <-g.s.out.Wake():
		case m := <-g.in:
			if err := g.take(m); err != nil {
				return err
			}
		}
	}
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

// sendOne publishes one message of the class whose turn it is; false when there
// is nothing to send or the context ended.
func (g *gen) sendOne(ctx context.Context, lanes *[schema.NumClasses]lane) (bool, error) {
	if ctx.Err() != nil {
		return false, nil
	}
	tried := [schema.NumClasses]bool{}
	for {
		c, ok := turn(lanes, &tried)
		if !ok {
			return false, nil
		}
		tried[c] = true
		l := &lanes[c]
		limit := schema.MaxRecords
		if c == schema.ClassSnapshot {
			limit = 1 // each brings its picture along
		}
		recs, err := g.s.out.Read(c, l.next, limit, packBytes)
		if err != nil {
			return false, fmt.Errorf("read %s records from the spool: %w", c, err)
		}
		if len(recs) == 0 {
			continue
		}
		n, size, err := g.send(ctx, recs, l.backlog)
		if err != nil {
			return false, err
		}
		if n == 0 {
			return false, nil // the context ended while waiting for room
		}
		l.next = recs[n-1].Seq + 1
		if w := weights[c]; w > 0 {
			l.share += int64(size) / w
		}
		return true, nil
	}
}

// turn picks the class to look at: alarms, then the one that had least.
func turn(lanes *[schema.NumClasses]lane, tried *[schema.NumClasses]bool) (schema.Class, bool) {
	if !tried[schema.ClassAlarm] {
		return schema.ClassAlarm, true
	}
	best, found := schema.Class(0), false
	for c := schema.ClassEvent; c < schema.NumClasses; c++ {
		if !tried[c] && (!found || lanes[c].share < lanes[best].share) {
			best, found = c, true
		}
	}
	return best, found
}

// send packs as many records as fit into one message and publishes it. It returns
// how many records are dealt with and the bytes published.
func (g *gen) send(ctx context.Context, recs []schema.Stored, backlog uint64) (int, int, error) {
	first := recs[0]
	n, size := 0, 0
	for n < len(recs) && n < schema.MaxRecords && recs[n].Epoch == first.Epoch {
		k := len(recs[n].Payload) + recordCost
		if n > 0 && size+k > packBytes {
			break
		}
		size += k
		n++
	}
	if len(first.Payload) > schema.MaxRecord {
		return 1, 0, g.refuse(first, schema.ReasonOversize)
	}
	blob := ""
	if first.Class == schema.ClassSnapshot {
		name, err := g.sendBlob(ctx, first)
		if errors.Is(err, ErrBlobGone) || errors.Is(err, fs.ErrNotExist) {
			return 1, 0, g.refuse(first, schema.ReasonBlobGone)
		}
		if err != nil || ctx.Err() != nil {
			return 0, 0, err
		}
		blob = name
	}
	m := schema.Message{
		V: schema.Version, Board: g.s.cfg.Board, Class: first.Class, Epoch: first.Epoch,
		Sent: g.s.cfg.Clock.Now(), Replay: recs[n-1].Seq <= backlog,
	}
	_, _ = rand.Read(m.Trace[:])
	f := &flight{class: first.Class, epoch: first.Epoch, blob: blob, left: n, acked: make([]bool, n), fleet: make(chan struct{})}
	for _, r := range recs[:n] {
		m.Records = append(m.Records, schema.SeqRecord{Seq: r.Seq, Payload: r.Payload})
		f.seqs = append(f.seqs, r.Seq)
	}
	payload, err := schema.Encode(&m)
	if err != nil {
		g.s.cfg.Log.Error("record cannot be sent", "class", first.Class.String(), "seq", first.Seq, "err", err)
		return 1, 0, g.refuse(first, schema.ReasonOversize)
	}
	topic := schema.MessageTopic(g.s.cfg.Tenant, g.s.cfg.Board, first.Class).String()
	ok, err := g.launch(ctx, f, topic, payload)
	if err != nil || !ok {
		return 0, 0, err
	}
	g.s.published(recs[:n])
	return n, len(payload), nil
}

// refuse settles a record that can never be sent. Where the spool cannot do
// that, the record stays and is passed over in this generation.
func (g *gen) refuse(r schema.Stored, why schema.Reason) error {
	g.s.count(func(st *Status) { st.Refused++ })
	if f, ok := g.s.out.(Refuser); ok {
		if err := f.Refuse(r.Class, r.Epoch, r.Seq, why); err != nil {
			return fmt.Errorf("write record %d of class %s into the loss ledger: %w", r.Seq, r.Class, err)
		}
	}
	return nil
}

// sendBlob publishes the picture of a snapshot record in chunks.
func (g *gen) sendBlob(ctx context.Context, r schema.Stored) (string, error) {
	rec, err := schema.DecodeRecord(r.Payload)
	if err != nil || rec.Snapshot == nil {
		return "", nil //nolint:nilerr // not a picture's index: goes as it is, the fleet refuses it by name
	}
	name := rec.Snapshot.Name
	b, err := g.s.blobs.OpenBlob(name)
	if err != nil {
		return "", err
	}
	defer b.Close()
	if b.Size() != rec.Snapshot.Size {
		return "", fmt.Errorf("%s has %d bytes, not %d: %w", name, b.Size(), rec.Snapshot.Size, ErrBlobGone)
	}
	topic := schema.Topic{Tenant: g.s.cfg.Tenant, Board: g.s.cfg.Board, Channel: schema.ChanBlob, Tail: name}.String()
	buf := make([]byte, min(b.Size(), schema.MaxChunk))
	for off := int64(0); off < b.Size(); off += schema.MaxChunk {
		k := min(b.Size()-off, schema.MaxChunk)
		if _, err := b.ReadAt(buf[:k], off); err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read picture %s: %w", name, err)
		}
		payload, err := schema.Encode(&schema.Chunk{V: schema.Version, Offset: off, Total: b.Size(), Data: buf[:k]})
		if err != nil {
			return "", fmt.Errorf("picture %s: %w", name, err)
		}
		if ok, err := g.launch(ctx, &flight{}, topic, payload); err != nil || !ok {
			return "", err
		}
	}
	return name, nil
}

// launch publishes within the window; false when the context ended first.
func (g *gen) launch(ctx context.Context, f *flight, topic string, payload []byte) (bool, error) {
	f.bytes = len(payload)
	for {
		g.mu.Lock()
		room := len(g.open) < g.s.cfg.Window && (g.bytes == 0 || g.bytes+f.bytes <= g.s.cfg.WindowBytes)
		if room {
			g.bytes += f.bytes
			g.open = append(g.open, f)
		}
		g.mu.Unlock()
		if room {
			break
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-g.lost:
			return false, g.why
		case <-g.freed:
		case m := <-g.in:
			if err := g.take(m); err != nil {
				return false, err
			}
		}
	}
	f.at = time.Now()
	f.token = g.client.Publish(topic, 1, false, payload)
	g.s.count(func(st *Status) { st.InFlight++ })
	g.flights <- f // its capacity is the window, so this never waits
	return true, nil
}

// drain waits a little for what is in flight, on a stop.
func (g *gen) drain() error {
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	for {
		g.mu.Lock()
		n := len(g.open)
		g.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-timer.C:
			return nil
		case <-g.lost:
			return nil
		case <-g.freed:
		case m := <-g.in:
			if err := g.take(m); err != nil {
				return err
			}
		}
	}
}
