// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package storetest is what the gateway, the page and the API may expect of a store, as
// tests for whatever keeps it: [Run] is the suite. It knows nothing of databases.
package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"fulmar/fleet/store/live"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// Store is both sides of a store: what boards deliver goes in, what people ask comes out.
type Store interface {
	// Publish makes a message durable, once; refused tells that it can never be understood.
	Publish(ctx context.Context, board live.Key, topic string, payload []byte) (refused bool, err error)
	Hello(ctx context.Context, board live.Key, h *schema.Hello) error
	Presence(ctx context.Context, board live.Key, p schema.Presence) error
	Wipe(ctx context.Context, board live.Key) error
	web.Source
}

// Bounds are what a store keeps at most.
type Bounds struct {
	EventBytes int64 // of events, their rows' own cost included; 0: the default
}

// Open opens a store on a folder, which may hold what an earlier one left there. Its
// Overview is never older than the call. It knows the boards a and b of each tenant. stop
// ends it in order.
type Open func(t testing.TB, dir string, b Bounds) (s Store, stop func())

// Run holds a kind of store to the suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"Once", once}, {"Sums", sums}, {"Tenants", tenants}, {"Order", order}, {"Bounds", bounds}, {"Retention", retention}, {"Reopen", reopen}, {"Refused", refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, open)
		})
	}
}

// sender sends as one board; its numbers go on over reopening.
type sender struct {
	t   testing.TB
	s   Store
	key live.Key
	seq [schema.NumClasses]uint64
	all []sent
}

type sent struct {
	topic   string
	payload []byte
}

func (b *sender) pack(c schema.Class, at time.Time, recs ...schema.Record) sent {
	b.t.Helper()
	m := &schema.Message{V: schema.Version, Board: b.key.Board, Class: c, Epoch: 7, Sent: clock(time.Now())}
	for _, r := range recs {
		r.Time = clock(at)
		raw, err := schema.EncodeRecord(&r)
		if err != nil {
			b.t.Fatal(err)
		}
		b.seq[c]++
		m.Records = append(m.Records, schema.SeqRecord{Seq: b.seq[c], Payload: raw})
	}
	p, err := schema.Encode(m)
	if err != nil {
		b.t.Fatal(err)
	}
	return sent{schema.MessageTopic(b.key.Tenant, b.key.Board, c).String(), p}
}

// send publishes records made at a moment.
func (b *sender) send(c schema.Class, at time.Time, recs ...schema.Record) {
	b.t.Helper()
	b.again(b.pack(c, at, recs...))
}

func (b *sender) again(x sent) {
	b.t.Helper()
	if refused, err := b.s.Publish(b.t.Context(), b.key, x.topic, x.payload); err != nil || refused {
		b.t.Fatalf("%s: refused %v, %v", x.topic, refused, err)
	}
	b.all = append(b.all, x)
}

// clock is that of a board whose time is right and which runs since 1970.
func clock(t time.Time) schema.Time {
	return schema.Time{Boot: 1, Mono: t.UnixNano(), Wall: t.UnixMilli()}
}

func sample(name string, v float64) schema.Record {
	return schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{name}, Value: []float64{v}}}
}

func event(frame uint64, snapshot string) schema.Record {
	return schema.Record{Kind: schema.KindEvent, Event: &schema.Event{
		Source: "cam", Model: "m@1", Frame: frame, Boxes: []schema.Box{{Score: 1}}, Snapshot: snapshot,
	}}
}

// picture sends a picture and its index.
func (b *sender) picture(name string, at time.Time, jpeg []byte) {
	b.t.Helper()
	chunk, err := schema.Encode(&schema.Chunk{V: schema.Version, Total: int64(len(jpeg)), Data: jpeg})
	if err != nil {
		b.t.Fatal(err)
	}
	b.again(sent{schema.BoardPrefix(b.key.Tenant, b.key.Board) + string(schema.ChanBlob) + name, chunk})
	b.send(schema.ClassSnapshot, at, schema.Record{Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{
		Name: name, Size: int64(len(jpeg)), SHA256: sha256.Sum256(jpeg), Media: "image/jpeg", Source: "cam",
	}})
}

// overview gives a tenant's boards by name.
func overview(t testing.TB, s Store, tenant string) map[string]*web.Board {
	t.Helper()
	o, err := s.Overview(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*web.Board{}
	for i := range o.Boards {
		out[o.Boards[i].Name] = &o.Boards[i]
		if i > 0 && o.Boards[i].Name <= o.Boards[i-1].Name {
			t.Errorf("board %s comes after %s", o.Boards[i].Name, o.Boards[i-1].Name)
		}
	}
	return out
}

func book(b *web.Board, c schema.Class) web.Ledger {
	for _, l := range b.Ledger {
		if l.Class == c.String() {
			return l
		}
	}
	return web.Ledger{}
}

func detections(t testing.TB, s Store, q web.DetectionQuery) []web.Detection {
	t.Helper()
	d, err := s.Detections(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func frames(d []web.Detection) string {
	out := ""
	for i := range d {
		out += fmt.Sprint(d[i].Event.Frame, " ")
	}
	return out
}
