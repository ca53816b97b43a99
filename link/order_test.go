// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// TestOrder: over cuts at bad moments, the numbers of a class rise within a
// connection, those of its backlog and those that are live each for themselves, and
// none is missing in the end.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		var mu sync.Mutex
		var last [schema.NumClasses][2]uint64 // of this connection
		var backlog [schema.NumClasses]uint64 // highest number made before it
		var seen [schema.NumClasses]map[uint64]bool
		for c := range seen {
			seen[c] = map[uint64]bool{}
		}
		b.Take = func(tp schema.Topic, p []byte) error {
			var h schema.Hello
			mu.Lock()
			defer mu.Unlock()
			if tp.Channel == schema.ChanHello && schema.Decode(p, &h) == nil {
				last = [schema.NumClasses][2]uint64{}
				for _, c := range h.Cursors {
					backlog[c.Class] = c.Last
				}
			}
			var msg schema.Message
			if tp.Channel != schema.ChanEvent && tp.Channel != schema.ChanStream {
				return nil
			}
			if err := schema.Decode(p, &msg); err != nil {
				return err
			}
			side := 0
			if msg.Replay {
				side = 1
			}
			for _, r := range msg.Records {
				if l := &last[msg.Class][side]; r.Seq > *l {
					*l = r.Seq
				} else {
					t.Errorf("%s %d came after %d in one connection", msg.Class, r.Seq, *l)
				}
				// Records made between the hello and the first look are marked as backlog, too.
				if !msg.Replay && r.Seq <= backlog[msg.Class] {
					t.Errorf("%s %d of %d is not marked as backlog", msg.Class, r.Seq, backlog[msg.Class])
				}
				seen[msg.Class][r.Seq] = true
			}
			return nil
		}
		cfg := config(b)
		cfg.ReconnectWindow = time.Second
		start(t, cfg, m)
		draw := rand.New(rand.NewPCG(1, 2))
		for range 3000 {
			m.add(schema.Class(draw.IntN(3)), make([]byte, 200+draw.IntN(2000)))
			switch draw.IntN(200) {
			case 0:
				b.SetCut(true)
				b.SetCut(false)
			case 1:
				b.Freeze()
			}
			time.Sleep(time.Duration(draw.IntN(400)) * time.Millisecond)
		}
		time.Sleep(20 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for c := range schema.Class(3) {
			m.mu.Lock()
			last, left := m.last[c], len(m.recs[c])
			m.mu.Unlock()
			if uint64(len(seen[c])) != last || left != 0 {
				t.Errorf("%s: %d of %d arrived, %d left", c, len(seen[c]), last, left)
			}
		}
	})
}

// TestWindow: with nothing acknowledged, what is in flight stays within the bounds,
// in messages and in bytes; a message larger than the window goes alone.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		what            string
		messages, bytes int
		record          int
		want            int // messages in flight
	}{
		{"messages", 3, 1 << 20, 16 << 10, 3},
		{"bytes", 64, 256 << 10, 16 << 10, 14}, // of one record each, as the connection is new, in 15/16 of the window
		{"less than one message", 64, 1 << 10, 4000, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, m := linktest.New(t), newMemory()
				b.Hello.Mode = schema.AckFleet
				var mu sync.Mutex
				messages, bytes := 0, 0
				b.Take = func(tp schema.Topic, p []byte) error {
					if tp.Channel == schema.ChanEvent {
						mu.Lock()
						messages, bytes = messages+1, bytes+len(p)
						mu.Unlock()
					}
					return nil
				}
				for range 300 {
					m.add(schema.ClassEvent, make([]byte, c.record))
				}
				cfg := config(b)
				cfg.Window, cfg.WindowBytes, cfg.AckTimeout = c.messages, c.bytes, time.Hour
				s := start(t, cfg, m)
				time.Sleep(5 * time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if messages != c.want || s.Status().InFlight != c.want || messages > 1 && bytes > c.bytes {
					t.Errorf("%d messages of %d bytes are out, status says %d, wants %d", messages, bytes, s.Status().InFlight, c.want)
				}
			})
		})
	}
}

// TestAlarmOvertakesPicture: an alarm made while a large picture is on its way
// waits for the window, not for the picture.
func TestAlarmOvertakesPicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		const size = 8 << 20
		var mu sync.Mutex
		var got int64
		at := map[schema.Class]int64{} // bytes of the picture there when the class came
		b.Take = func(tp schema.Topic, p []byte) error {
			time.Sleep(time.Duration(len(p)) * time.Second / (128 << 10)) // 1 Mbit/s
			mu.Lock()
			defer mu.Unlock()
			var c schema.Chunk
			if tp.Channel == schema.ChanBlob && schema.Decode(p, &c) == nil {
				got += int64(len(c.Data))
			}
			var msg schema.Message
			if tp.Channel == schema.ChanEvent && schema.Decode(p, &msg) == nil {
				at[msg.Class] = got
			}
			return nil
		}
		m.blobs["big.jpg"] = make([]byte, size)
		rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{Name: "big.jpg", Size: size, Source: "cam0"}})
		if err != nil {
			t.Fatal(err)
		}
		m.add(schema.ClassSnapshot, rec)
		cfg := config(b)
		cfg.ReconnectWindow = time.Nanosecond
		start(t, cfg, m)
		time.Sleep(10 * time.Second)
		m.add(schema.ClassAlarm, record(t))
		mu.Lock()
		before := got
		mu.Unlock()
		time.Sleep(5 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if over := at[schema.ClassAlarm] - before; at[schema.ClassAlarm] == 0 || over > defaultWindowBytes+2*schema.MaxChunk {
			t.Errorf("the alarm came after %d further bytes of the picture", over)
		}
		if at[schema.ClassSnapshot] != size || m.left() != 0 {
			t.Errorf("the index came at %d of %d bytes, %d records left", at[schema.ClassSnapshot], size, m.left())
		}
	})
}
