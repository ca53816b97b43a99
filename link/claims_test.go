// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// text is a log that a test may read while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// count tells how many lines hold a text.
func (l *text) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// TestFalseAck: in mode fleet the word for what was never sent frees nothing, ends
// nothing, is counted, and said once a minute; what is right in the same word counts,
// and so does a word that comes late or twice.
func TestFalseAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, f := linktest.New(t), newMemory(), newFleet()
		b.Take, b.Hello.Mode = f.take, schema.AckFleet
		cfg, log := config(b), &text{}
		cfg.AckTimeout, cfg.Window, cfg.ReconnectWindow = time.Hour, 1, time.Second
		cfg.Log = slog.New(slog.NewTextHandler(log, nil))
		s := start(t, cfg, m)
		time.Sleep(10 * time.Second)
		r := record(t)
		m.addAll(schema.ClassEvent, r, r, r, r, r) // one message: the window takes no second
		time.Sleep(time.Second)
		for range 5 {
			m.add(schema.ClassEvent, record(t)) // the window is full: these do not go out
		}
		time.Sleep(time.Second)
		if f.has(schema.ClassEvent) != 5 {
			t.Fatalf("%d records are out, wants the first five", f.has(schema.ClassEvent))
		}
		step := func(what string, epoch uint64, left int, falses uint64, ranges ...[2]uint64) {
			t.Helper()
			payload, err := schema.Encode(&schema.Ack{V: 1, Class: schema.ClassEvent, Epoch: epoch, Ranges: ranges})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Publish("f/v1/default/dock-1/ack", payload); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if st := s.Status(); m.left() != left || st.FalseAcks != falses || !st.Up() || st.Generation != 1 {
				t.Errorf("%s: %d left, wants %d; %d false, wants %d; %+v", what, m.left(), left, st.FalseAcks, falses, st)
			}
		}
		const said = "acknowledges records that were never sent"
		step("above all that was ever made", testEpoch, 10, 1, [2]uint64{11, 900})
		if log.count("above everything sent") != 1 || log.count("class=event epoch=42 first=11 last=900") != 1 {
			t.Errorf("the log says\n%s", log.b.String())
		}
		step("made and not sent", testEpoch, 10, 2, [2]uint64{7, 7})
		step("another epoch", testEpoch+1, 10, 3, [2]uint64{1, 1})
		step("right and wrong in one", testEpoch, 5, 4, [2]uint64{1, 5}, [2]uint64{500, 500}) // and 6 to 10 go out
		step("the same again", testEpoch, 5, 4, [2]uint64{1, 5})
		if log.count(said) != 1 {
			t.Errorf("said %d times within a minute", log.count(said))
		}
		time.Sleep(time.Minute)
		step("a minute later", testEpoch, 5, 5, [2]uint64{900, 900})
		if log.count(said) != 2 {
			t.Errorf("said %d times, wants a second one after a minute", log.count(said))
		}
		b.SetCut(true)
		b.SetCut(false)
		time.Sleep(time.Minute) // all that is left goes out anew, as far as the window lets it
		if n := s.Status().Generation; n != 2 {
			t.Fatalf("%d connections", n)
		}
		payload, err := schema.Encode(&schema.Ack{V: 1, Class: schema.ClassEvent, Epoch: testEpoch, Ranges: [][2]uint64{{1, 7}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish("f/v1/default/dock-1/ack", payload); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if st := s.Status(); st.FalseAcks != 5 {
			t.Errorf("a late word for what an earlier connection sent is called false: %+v", st)
		}
	})
}
