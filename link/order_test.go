// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// TestOrder: over cuts at bad moments, the numbers of a class that arrive for the
// first time rise, and none is missing.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m := linktest.New(t), newMemory()
		var mu sync.Mutex
		var first [schema.NumClasses][]uint64
		b.Take = func(tp schema.Topic, p []byte) error {
			var msg schema.Message
			if tp.Channel != schema.ChanEvent && tp.Channel != schema.ChanStream {
				return nil
			}
			if err := schema.Decode(p, &msg); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, r := range msg.Records {
				if f := &first[msg.Class]; len(*f) == 0 || r.Seq > (*f)[len(*f)-1] {
					*f = append(*f, r.Seq)
				} else if !slices.Contains(*f, r.Seq) {
					t.Errorf("%s %d came after %d", msg.Class, r.Seq, (*f)[len(*f)-1])
				}
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
			if uint64(len(first[c])) != last || left != 0 {
				t.Errorf("%s: %d of %d arrived, %d left", c, len(first[c]), last, left)
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
		{"bytes", 64, 256 << 10, 16 << 10, 5}, // of three records, 48 KiB, each
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

// TestShares: with all classes full, the line is shared 4 : 2 : 1 by bytes; a class
// that was idle for long gets its share from then on, not the time it slept.
func TestShares(t *testing.T) {
	t.Parallel()
	p := &publisher{}
	has := [schema.NumClasses]bool{schema.ClassEvent: true}
	serve := func(n int) (sent [schema.NumClasses]int) {
		for range n {
			var tried [schema.NumClasses]bool
			for c, ok := p.turn(&tried); ok; c, ok = p.turn(&tried) {
				tried[c] = true
				if has[c] {
					p.served(c, 1000)
					sent[c]++
					break
				}
			}
		}
		return sent
	}
	serve(100_000) // events alone
	has[schema.ClassMetric], has[schema.ClassSnapshot] = true, true
	sent := serve(700)
	for c, want := range map[schema.Class]int{schema.ClassEvent: 400, schema.ClassMetric: 200, schema.ClassSnapshot: 100} {
		if d := sent[c] - want; d < -2 || d > 2 {
			t.Errorf("%s had %d turns of 700, wants %d", c, sent[c], want)
		}
	}
	has[schema.ClassAlarm] = true
	if sent := serve(50); sent[schema.ClassAlarm] != 50 {
		t.Errorf("alarms had %d turns of 50", sent[schema.ClassAlarm])
	}
}

// TestSubtract holds the arithmetic of spans against a set of numbers.
func TestSubtract(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(3, 4))
	spans := func() (out []span) {
		for at := uint64(1 + draw.IntN(5)); at < 60; at += uint64(2 + draw.IntN(8)) {
			end := at + uint64(draw.IntN(9))
			out = append(out, span{at, end})
			at = end
		}
		return out
	}
	set := func(s []span) map[uint64]bool {
		out := map[uint64]bool{}
		for _, r := range s {
			for n := r[0]; n <= r[1]; n++ {
				out[n] = true
			}
		}
		return out
	}
	for range 5000 {
		a, b := spans(), spans()
		got := subtract(a, b)
		in, out, left := set(a), set(b), set(got)
		for n := range uint64(100) {
			if left[n] != (in[n] && !out[n]) {
				t.Fatalf("%v less %v is %v, wrong at %d", a, b, got, n)
			}
		}
		for i, r := range got {
			if r[1] < r[0] || i > 0 && r[0] <= got[i-1][1] {
				t.Fatalf("%v less %v is %v, not rising", a, b, got)
			}
		}
	}
}
