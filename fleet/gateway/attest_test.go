// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ingest"
	"fulmar/schema"
)

// asker is an Attester that writes down what it hears.
type asker struct {
	mu    sync.Mutex
	nonce []byte
	heard []string
	got   chan uint64 // connections of answers
	slow  chan struct{}
}

func (a *asker) hello(key ingest.BoardKey, h *schema.Hello) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard = append(a.heard, key.Tenant+"/"+key.Board+" "+h.Release)
}

func (a *asker) Ask(context.Context, string, string, uint64) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nonce
}

func (a *asker) Answer(_ context.Context, tenant, board string, conn uint64, payload []byte) {
	select {
	case <-a.slow:
	case <-time.After(10 * time.Second): // a test that failed meanwhile
	}
	if tenant+"/"+board == "default/b1" && string(payload) == "\xa1\x01\x01" {
		a.got <- conn
	}
}

// TestAttest: a board is asked in the answer to its hello and later in the same
// connection, what it answers is handed on with its connection, and neither an answer
// that is nonsense nor one that takes its time concerns another board.
func TestAttest(t *testing.T) {
	t.Parallel()
	a := &asker{nonce: bytes.Repeat([]byte{7}, 32), got: make(chan uint64, 4), slow: make(chan struct{})}
	h := open(t, nil)
	h.gate.cfg.Attest, h.gate.cfg.Hello = a, a.hello // before anybody connects
	cert, other := h.enrol(t, "b1"), h.enrol(t, "b2")
	c, d := h.connect(t, "b1", &cert), h.connect(t, "b2", &other)
	asked := make(chan *schema.HelloAck, 8)
	err := finish(c.Subscribe("f/v1/default/b1/hello/ack", 1, func(_ mqtt.Client, m mqtt.Message) {
		ack := new(schema.HelloAck)
		if err := schema.Decode(m.Payload(), ack); err != nil {
			t.Error(err)
		}
		asked <- ack
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(c.Publish("f/v1/default/b1/at", 1, false, []byte("\xa1\x01\x01"))); err != nil {
		t.Fatal(err) // before the hello there is no connection to answer in: not handed on
	}
	hello, err := schema.Encode(&schema.Hello{V: 1, Board: "b1", Release: "1.0", Conn: 77, Now: schema.Time{Boot: 1, Wall: time.Now().UnixMilli()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(c.Publish("f/v1/default/b1/hello", 1, false, hello)); err != nil {
		t.Fatal(err)
	}
	next := func() *schema.HelloAck {
		t.Helper()
		select {
		case ack := <-asked:
			return ack
		case <-time.After(10 * time.Second):
			t.Fatal("no answer")
		}
		return nil
	}
	if ack := next(); !bytes.Equal(ack.Attest, a.nonce) || ack.Conn != 77 {
		t.Fatalf("answer to the hello: %+v", ack)
	}
	// An answer that is being checked: b2 publishes meanwhile.
	tok := c.Publish("f/v1/default/b1/at", 1, false, []byte("\xa1\x01\x01"))
	topic, p := payload(t, "b2", 1)
	if err := finish(d.Publish(topic, 1, false, p)); err != nil {
		t.Fatal(err)
	}
	close(a.slow)
	if err := finish(tok); err != nil {
		t.Fatal(err)
	}
	if len(a.got) != 1 { // handed on before the PUBACK
		t.Fatalf("%d handed on, want 1", len(a.got))
	}
	if conn := <-a.got; conn != 77 {
		t.Fatalf("handed on of connection %d", conn)
	}
	if err := finish(c.Publish("f/v1/default/b1/at", 1, false, []byte("nonsense"))); err != nil {
		t.Fatal("nonsense broke the link:", err)
	}
	h.gate.AskAgain()
	if ack := next(); !bytes.Equal(ack.Attest, a.nonce) || ack.RetryAfterMs != 0 {
		t.Fatalf("asked again: %+v", ack)
	}
	a.mu.Lock()
	a.nonce = nil
	heard := a.heard
	a.mu.Unlock()
	h.gate.AskAgain()
	h.gate.SetRate(1000)
	if ack := next(); ack.Attest != nil || ack.Rate != 1000 {
		t.Fatalf("not due, and yet: %+v", ack) // the answer to SetRate; AskAgain told nobody
	}
	if len(heard) != 1 || heard[0] != "default/b1 1.0" {
		t.Fatalf("heard of %q", heard)
	}
	if err := finish(c.Publish("f/v1/default/b2/at", 1, false, []byte("\xa1\x01\x01"))); err == nil && c.IsConnected() && len(a.got) > 0 {
		t.Fatal("a board spoke for another")
	}
}
