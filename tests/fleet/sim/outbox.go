// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/sha256"
	"fmt"
	"time"

	"fulmar/schema"
)

const (
	// window is how many messages a board has in flight.
	window = 4
	// maxKept bounds the records of a class that a board keeps while it cannot send:
	// more than an hour of samples. What is beyond it is given up, oldest first.
	maxKept = 1000
	// maxPacked bounds the records of one message where nothing else is asked for.
	maxPacked = 64
	// replayAfter is the age from which a record is a backlog.
	replayAfter = 30 * time.Second
)

// kept is a record that is not acknowledged.
type kept struct {
	seq     uint64
	payload []byte
	made    time.Time
	flying  bool
	picture *picture // of a snapshot: goes before it
}

type picture struct {
	name string
	jpeg []byte
	sent bool // acknowledged in this connection or an earlier one

	flying bool
}

// flight is a message that is on its way.
type flight struct {
	class   schema.Class
	records []*kept
	picture *picture // of a chunk
	became  uint64   // the version of the twin of which the last word is in it; 0: none
}

// outbox is what a board has made and the fleet has not acknowledged, by class.
type outbox struct {
	epoch [schema.NumClasses]uint64
	last  [schema.NumClasses]uint64
	acked [schema.NumClasses]uint64
	list  [schema.NumClasses][]*kept
	gone  [schema.NumClasses][2]uint64 // given up and not told yet, first and last; 0 none
	gone0 [schema.NumClasses]time.Time // when the first of them was made
}

// put numbers a record and keeps it; it gives how many older ones were given up for it.
func (o *outbox) put(c schema.Class, payload []byte, now time.Time, pic *picture) (dropped int) {
	o.last[c]++
	o.list[c] = append(o.list[c], &kept{seq: o.last[c], payload: payload, made: now, picture: pic})
	if len(o.list[c]) <= maxKept || o.list[c][0].flying || c == schema.ClassAlarm {
		return 0
	}
	old := o.list[c][0]
	o.list[c] = o.list[c][1:]
	if o.gone[c][0] == 0 {
		o.gone[c][0], o.gone0[c] = old.seq, old.made
	}
	o.gone[c][1] = old.seq
	return 1
}

// free forgets what was acknowledged.
func (o *outbox) free(f *flight) {
	done := map[*kept]bool{}
	for _, k := range f.records {
		done[k] = true
		o.acked[f.class] = max(o.acked[f.class], k.seq)
	}
	rest := o.list[f.class][:0]
	for _, k := range o.list[f.class] {
		if !done[k] {
			rest = append(rest, k)
		}
	}
	clear(o.list[f.class][len(rest):])
	o.list[f.class] = rest
}

// ground makes what was in flight wait again: the connection has ended.
func (o *outbox) ground() {
	for c := range o.list {
		for _, k := range o.list[c] {
			k.flying = false
			if k.picture != nil {
				k.picture.flying = false
			}
		}
	}
}

func (o *outbox) cursors() (out []schema.Cursor) {
	for c := range schema.Class(schema.NumClasses) {
		acked := o.last[c]
		if len(o.list[c]) > 0 {
			acked = o.list[c][0].seq - 1
		}
		out = append(out, schema.Cursor{Class: c, Epoch: o.epoch[c], Acked: acked, Last: o.last[c]})
	}
	return out
}

// pick gives the next message to send: alarms first, then events, samples, pictures. The
// picture of a snapshot comes before its record.
func (o *outbox) pick(packed int) *flight {
	for c := range schema.Class(schema.NumClasses) {
		var f *flight
		size := 0
		for _, k := range o.list[c] {
			if k.flying {
				continue
			}
			if k.picture != nil && !k.picture.sent {
				if f == nil && !k.picture.flying {
					return &flight{class: c, picture: k.picture}
				}
				break
			}
			if size += len(k.payload) + 16; f != nil && (len(f.records) == packed || size > schema.MaxPayload*3/4) {
				break
			}
			if f == nil {
				f = &flight{class: c}
			}
			f.records = append(f.records, k)
		}
		if f != nil {
			return f
		}
	}
	return nil
}

// message packs the records of a flight.
func (b *board) message(f *flight, now time.Time) ([]byte, error) {
	m := &schema.Message{V: schema.Version, Board: b.name, Class: f.class, Epoch: b.out.epoch[f.class], Sent: b.clock(now)}
	m.Replay = now.Sub(f.records[0].made) > replayAfter
	b.trace(&m.Trace)
	for _, k := range f.records {
		m.Records = append(m.Records, schema.SeqRecord{Seq: k.seq, Payload: k.payload})
	}
	return schema.EncodeMessage(m)
}

func (b *board) trace(id *[16]byte) {
	for i := 0; i < len(id); i += 8 {
		v := b.rnd.Uint64() | 1 // a trace id is never all zero
		for j := range 8 {
			id[i+j] = byte(v >> (8 * j))
		}
	}
}

// keep makes a record of the moment.
func (b *board) keep(c schema.Class, rec schema.Record, now time.Time, pic *picture) {
	rec.Time = b.clock(now)
	raw, err := schema.EncodeRecord(&rec)
	if err != nil {
		b.f.cfg.Log.Error("simulated record is none", "board", b.name, "err", err)
		return
	}
	dropped := b.out.put(c, raw, now, pic)
	b.f.n.dropped.Add(int64(dropped))
	b.f.n.waiting.Add(int64(1 - dropped))
	if b.f.cfg.Made != nil {
		b.f.cfg.Made(schema.ID{Board: b.name, Class: c, Epoch: b.out.epoch[c], Seq: b.out.last[c]})
	}
}

// confess makes gaps of what was given up.
func (b *board) confess(now time.Time) {
	for c := range schema.Class(schema.NumClasses) {
		if g := b.out.gone[c]; g[0] != 0 {
			b.out.gone[c] = [2]uint64{}
			b.keep(schema.ClassAlarm, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{
				Class: c, Epoch: b.out.epoch[c], First: g[0], Last: g[1], Reason: schema.ReasonQuota,
				FromWall: b.clock(b.out.gone0[c]).Wall, ToWall: b.clock(now).Wall,
			}}, now, nil)
		}
	}
}

// newPicture names a picture of a frame.
func (b *board) newPicture(camera string, frame uint64, jpeg []byte) (*picture, *schema.Snapshot) {
	name := fmt.Sprintf("%s-%x-%d.jpg", camera, b.boot&0xffffffff, frame)
	return &picture{name: name, jpeg: jpeg}, &schema.Snapshot{
		Name: name, Size: int64(len(jpeg)), SHA256: sha256.Sum256(jpeg), Media: "image/jpeg", Source: camera, Frame: frame,
	}
}
