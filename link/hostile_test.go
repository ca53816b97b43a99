// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// scripted is the config of a board at a broker that does what it is told.
func scripted(s *linktest.Script) Config {
	return Config{Tenant: "default", Board: "dock-1", Dial: s.Dial, Clock: schema.NewClock(7, 0), ReconnectWindow: time.Second}
}

// isRecord tells whether a packet carries records of a board.
func isRecord(p packets.ControlPacket) (*packets.PublishPacket, bool) {
	pub, ok := p.(*packets.PublishPacket)
	return pub, ok && strings.Contains(pub.TopicName, "/e/")
}

// TestLyingBrokers: brokers that answer what they were not asked, or nothing. None of
// them frees a record, and the status says what each did.
func TestLyingBrokers(t *testing.T) {
	noise := make([]byte, 1<<10)
	for i := range noise {
		noise[i] = byte(rand.New(rand.NewPCG(1, uint64(i))).IntN(256))
	}
	for _, c := range []struct {
		what string
		on   func(p packets.ControlPacket, write func([]byte)) bool
		why  string
	}{
		{"acknowledges a number never sent", func(p packets.ControlPacket, write func([]byte)) bool {
			pub, ok := isRecord(p)
			if ok {
				write([]byte{0x40, 2, 0x7f, byte(pub.MessageID)})
			}
			return ok
		}, "never sent"},
		{"acknowledges with a SUBACK", func(p packets.ControlPacket, write func([]byte)) bool {
			pub, ok := isRecord(p)
			if ok {
				write([]byte{0x90, 4, byte(pub.MessageID >> 8), byte(pub.MessageID), 1, 1})
			}
			return ok
		}, "never sent"},
		{"acknowledges with a PUBCOMP", func(p packets.ControlPacket, write func([]byte)) bool {
			pub, ok := isRecord(p)
			if ok {
				write([]byte{0x70, 2, byte(pub.MessageID >> 8), byte(pub.MessageID)})
			}
			return ok
		}, "type 7"},
		{"sends noise", func(p packets.ControlPacket, write func([]byte)) bool {
			_, ok := isRecord(p)
			if ok {
				write(noise)
			}
			return ok
		}, "broker sent"},
		{"speaks HTTP", func(p packets.ControlPacket, write func([]byte)) bool {
			write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			return true
		}, "no MQTT broker"},
		{"never answers CONNECT", func(packets.ControlPacket, func([]byte)) bool { return true }, "connect: network Error : read pipe: i/o timeout"},
		{"never answers SUBSCRIBE", func(p packets.ControlPacket, _ func([]byte)) bool {
			_, ok := p.(*packets.SubscribePacket)
			return ok
		}, "subscribe: no answer within 15s"},
		{"never acknowledges", func(p packets.ControlPacket, _ func([]byte)) bool { _, ok := isRecord(p); return ok }, "no PUBACK within 45s"},
		{"refuses to let the board in", func(p packets.ControlPacket, write func([]byte)) bool {
			_, ok := p.(*packets.ConnectPacket)
			if ok {
				write([]byte{0x20, 2, 0, 5})
			}
			return ok
		}, "ot Authori"},
		{"closes at once", func(_ packets.ControlPacket, write func([]byte)) bool { write(nil); return true }, "connect: "},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				for range 5 {
					m.add(schema.ClassEvent, record(t))
				}
				var dials atomic.Int64
				cfg := scripted(&linktest.Script{On: c.on})
				dial := cfg.Dial
				cfg.Dial = func(ctx context.Context) (net.Conn, error) { dials.Add(1); return dial(ctx) }
				cfg.KeepAlive = 4 * time.Minute
				s := start(t, cfg, m)
				said := false
				for range 2 * 3600 {
					time.Sleep(time.Second)
					if err := s.Status().Err; err != nil {
						said = said || strings.Contains(err.Error(), c.why)
					}
				}
				if !said {
					t.Errorf("the status never said %q but %v", c.why, s.Status().Err)
				}
				if m.left() != 5 || len(m.refused) != 0 || s.Status().Acked != 0 {
					t.Errorf("%d of 5 records are left, refused %v", m.left(), m.refused)
				}
				// With a window of a second the longest pause is 15 s, half of it on average.
				if n := dials.Load(); n > 2*3600/7 || n < 20 {
					t.Errorf("%d connections in two hours", n)
				}
			})
		})
	}
}

// TestFlood: a broker that sends 20,000 messages makes no goroutine for each, and
// either holds up no record or ends its connection.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		hello := linktest.Publish("f/v1/default/dock-1/hello/ack", []byte{0xa0})
		s := start(t, scripted(&linktest.Script{On: func(p packets.ControlPacket, write func([]byte)) bool {
			if _, ok := isRecord(p); ok {
				for range 2000 {
					write(hello)
				}
			}
			return false
		}}), m)
		time.Sleep(time.Minute)
		before := runtime.NumGoroutine()
		for range 10 {
			m.add(schema.ClassEvent, record(t))
			time.Sleep(time.Millisecond)
			if n := runtime.NumGoroutine(); n > before+10 {
				t.Errorf("%d goroutines in the flood, %d before it", n, before)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(10 * time.Minute)
		// Whether the flood is taken as fast as it comes is up to the scheduler; where
		// it is not, the connection is given up, and says why.
		if st := s.Status(); m.left() != 0 && !errors.Is(st.Err, errInbound) {
			t.Errorf("%d left, %+v", m.left(), st)
		}
	})
}

// TestSilentPeer: what takes a connection and neither reads nor answers.
func TestSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.add(schema.ClassEvent, record(t))
		cfg := scripted(nil)
		cfg.Dial = func(context.Context) (net.Conn, error) {
			board, peer := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, io.LimitReader(peer, 1)) }()
			return board, nil
		}
		s := start(t, cfg, m)
		time.Sleep(time.Minute)
		if err := s.Status().Err; err == nil || !strings.Contains(err.Error(), "connect: ") {
			t.Errorf("the status says %v", err)
		}
	})
}
