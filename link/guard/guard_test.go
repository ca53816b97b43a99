// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

var ack = []byte{0x20, 2, 0, 0} // CONNACK

// packet gives the bytes of a packet.
func packet(t testing.TB, p packets.ControlPacket) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func publishPacket(id uint16, qos byte, size int) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID, p.TopicName, p.Payload = qos, id, "f/v1/default/b1/e/event", make([]byte, size)
	return p
}

func subscribePacket(id uint16) *packets.SubscribePacket {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = id, []string{"a", "b"}, []byte{1, 1}
	return p
}

// TestAnswers: what a broker may answer to a SUBSCRIBE of number 1 and a PUBLISH of
// number 2, and what it may not.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		what string
		in   []byte
		why  string // "" where it is taken
	}{
		{"in order", []byte{0x90, 4, 0, 1, 1, 1, 0x40, 2, 0, 2}, ""},
		{"the other way round", []byte{0x40, 2, 0, 2, 0x90, 4, 0, 1, 1, 1}, ""},
		{"a message and a ping", []byte{0x32, 5, 0, 1, 'a', 0, 9, 0xd0, 0}, ""},
		{"a PUBACK twice", []byte{0x40, 2, 0, 2, 0x40, 2, 0, 2}, "never sent"},
		{"a PUBACK of a number never sent", []byte{0x40, 2, 0, 77}, "never sent"},
		{"a PUBACK for the SUBSCRIBE", []byte{0x40, 2, 0, 1}, "never sent"},
		{"a SUBACK for the PUBLISH", []byte{0x90, 4, 0, 2, 1, 1}, "never sent"},
		{"a SUBACK without a number", []byte{0x90, 1, 0}, "names no packet"},
		{"a SUBACK of nothing", []byte{0x90, 0}, "names no packet"},
		{"a PUBACK of one byte", []byte{0x40, 1, 0}, "names no packet"},
		{"an UNSUBACK for the PUBLISH", []byte{0xb0, 2, 0, 2}, "never sent"},
		{"an UNSUBACK for the SUBSCRIBE", []byte{0xb0, 2, 0, 1}, "never sent"},
		{"a PUBCOMP for the PUBLISH", []byte{0x70, 2, 0, 2}, "type 7"},
		{"a PUBREC for the PUBLISH", []byte{0x50, 2, 0, 2}, "type 5"},
		{"a message of QoS 2", []byte{0x34, 5, 0, 1, 'a', 0, 9}, "QoS 2"},
		{"a second CONNACK", ack, "CONNACK"},
		{"256 MB", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, "bytes or more"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			board, broker := net.Pipe()
			defer board.Close()
			go func() {
				_, _ = io.CopyN(io.Discard, broker, int64(len(packet(t, subscribePacket(1)))+len(packet(t, publishPacket(2, 1, 10)))+len(packet(t, publishPacket(0, 0, 10)))))
				_, _ = broker.Write(append(bytes.Clone(ack), c.in...))
				_ = broker.Close()
			}()
			var asked, answered int
			g := New(board, Config{
				Filters: 2, Asked: func(n int) { asked += n },
				Answered: func(took time.Duration, n int) {
					if answered += n; took < 0 || took > time.Minute {
						t.Errorf("took %v", took)
					}
				},
			})
			for _, p := range []packets.ControlPacket{subscribePacket(1), publishPacket(2, 1, 10), publishPacket(0, 0, 10)} {
				if err := p.Write(g); err != nil {
					t.Fatal(err)
				}
			}
			_, err := io.Copy(io.Discard, g)
			switch {
			case c.why == "" && err != nil, c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)):
				t.Errorf("%v, wants %q", err, c.why)
			case c.why == "" && !g.HungUp(), c.why != "" && g.HungUp():
				t.Errorf("hung up: %v", g.HungUp())
			}
			if want := len(packet(t, publishPacket(2, 1, 10))); asked != want || c.why == "" && c.in[1] != 5 && answered != want {
				t.Errorf("asked %d bytes, answered %d, wants %d", asked, answered, want)
			}
		})
	}
}

// TestNoBroker: what does not begin with a CONNACK is no broker.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	f := framing{answer: func(byte, uint16, int) error { return nil }}
	if err := f.take([]byte("HTTP/1.1 400 Bad Request\r\n")); err == nil {
		t.Error("HTTP was taken for MQTT")
	}
}

// TestOutgoing reads the numbers of what the client writes.
func TestOutgoing(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 10, 200, 20_000, 3 << 20} {
		if id, kind := outgoing(packet(t, publishPacket(0xabcd, 1, size))); id != 0xabcd || kind != puback {
			t.Errorf("PUBLISH of %d bytes: %x, %d", size, id, kind)
		}
		if _, kind := outgoing(packet(t, publishPacket(0, 0, size))); kind != 0 {
			t.Errorf("PUBLISH of QoS 0 wants an answer of kind %d", kind)
		}
	}
	if id, kind := outgoing(packet(t, subscribePacket(7))); id != 7 || kind != suback {
		t.Errorf("SUBSCRIBE: %d, %d", id, kind)
	}
}

// TestWriteBound: a write to who does not read ends when its bound is over, whatever
// the client does to the bound meanwhile: it sets one for what it publishes and takes
// it away after that, while a ping may still be waiting.
func TestWriteBound(t *testing.T) {
	t.Parallel()
	for what, meddle := range map[string]func(net.Conn, time.Duration) error{
		"left alone": func(net.Conn, time.Duration) error { return nil },
		"taken away before": func(c net.Conn, at time.Duration) error {
			if at > 0 {
				return nil
			}
			return c.SetWriteDeadline(time.Time{})
		},
		"taken away meanwhile": func(c net.Conn, _ time.Duration) error { return c.SetWriteDeadline(time.Time{}) },
		"put off meanwhile":    func(c net.Conn, _ time.Duration) error { return c.SetWriteDeadline(time.Now().Add(time.Hour)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				board, broker := net.Pipe()
				defer board.Close()
				defer broker.Close()
				g := New(board, Config{})
				if err := meddle(g, 0); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				done := make(chan error, 1)
				go func() { _, err := g.Write([]byte{0xc0, 0}); done <- err }()
				time.Sleep(WriteTimeout / 2)
				if err := meddle(g, WriteTimeout/2); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-done:
					if took := time.Since(began); took != WriteTimeout || !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("the write ended after %v with %v, wants %v and a deadline", took, err, WriteTimeout)
					}
				case <-time.After(time.Hour):
					t.Error("the write has no end")
				}
			})
		})
	}
}

func FuzzFraming(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0, 0x30, 0x02, 'a', 'b', 0xd0, 0x00})
	f.Add([]byte{0x20, 2, 0, 0, 0x30, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{0x20, 2, 0, 0, 0x90, 4, 0, 1, 1, 1, 0x40, 2, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		framed := func() framing {
			return framing{cfg: Config{Filters: 2, MaxPacket: MaxPacket}, answer: func(byte, uint16, int) error { return nil }}
		}
		whole, parts := framed(), framed()
		errWhole := whole.take(b)
		var errParts error
		for i := range b {
			if errParts = parts.take(b[i : i+1]); errParts != nil {
				break
			}
		}
		if (errWhole == nil) != (errParts == nil) {
			t.Errorf("read whole: %v, byte by byte: %v", errWhole, errParts)
		}
		if whole.left > MaxPacket || whole.left < 0 {
			t.Errorf("a packet of %d bytes was let through", whole.left)
		}
	})
}

func FuzzOutgoing(f *testing.F) {
	f.Add([]byte{0x32, 5, 0, 1, 'a', 0, 9})
	f.Add([]byte{0x82, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, b []byte) { outgoing(b) })
}
