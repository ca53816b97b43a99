// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/command"
	"fulmar/fleet/ingest"
	"fulmar/schema"
	"fulmar/twin/wire"
)

// side is the fleet's side of twins and commands: it stores into memory.
type side struct {
	fail   atomic.Bool
	slow   time.Duration
	mu     sync.Mutex
	stored []string
	hellos chan string
}

func (s *side) store(what string) error {
	time.Sleep(s.slow)
	if s.fail.Load() {
		return errBroken
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored = append(s.stored, what)
	return nil
}

func (s *side) has() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stored)
}

func (s *side) Up(_ context.Context, tenant, board string, u wire.Up) (*wire.Down, error) {
	if err := s.store(fmt.Sprintf("twin %s/%s %d", tenant, board, u.Head.Counter)); err != nil {
		return nil, err
	}
	if u.Want == 0 {
		return nil, nil
	}
	return &wire.Down{V: schema.Version, Conn: u.Conn, Head: wire.Head{Version: u.Head.Counter}}, nil
}

func (s *side) Report(_ context.Context, tenant, board string, r command.Report) error {
	return s.store(fmt.Sprintf("result %s/%s %s %s", tenant, board, r.Result.ID, r.Result.State))
}

func (s *side) Hello(tenant, board string) { s.hellos <- tenant + "/" + board }

// keys are key sets 1 to n, each its number.
type keys int

func (k keys) KeySet() (uint64, []byte) { return uint64(k), []byte{byte(k)} }

func (k keys) After(v uint64) (out [][]byte) {
	for v++; v <= uint64(k); v++ {
		out = append(out, []byte{byte(v)})
	}
	return out
}

// channels is a hall whose gateway has all sides.
func channels(t testing.TB) (*hall, *side) {
	t.Helper()
	h, s := open(t, nil), &side{hellos: make(chan string, 16)}
	h.gate.cfg.Twins, h.gate.cfg.Commands = s, s // before anybody connects
	return h, s
}

// heard subscribes to what a board hears and hands it on as "channel payload".
func heard(t testing.TB, c mqtt.Client, board string) <-chan mqtt.Message {
	t.Helper()
	got := make(chan mqtt.Message, 256)
	for _, ch := range []string{"hello/ack", "tw/d", "c/+", "keys"} {
		if err := finish(c.Subscribe("f/v1/default/"+board+"/"+ch, 1, func(_ mqtt.Client, m mqtt.Message) { got <- m })); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func next(t testing.TB, got <-chan mqtt.Message) schema.Topic {
	t.Helper()
	topic, _ := nextWith(t, got)
	return topic
}

func nextWith(t testing.TB, got <-chan mqtt.Message) (schema.Topic, []byte) {
	t.Helper()
	select {
	case m := <-got:
		topic, err := schema.ParseTopic(m.Topic())
		if err != nil {
			t.Fatal(err)
		}
		return topic, m.Payload()
	case <-time.After(5 * time.Second):
		t.Fatal("nothing came in 5 s")
		return schema.Topic{}, nil
	}
}

func encoded(t testing.TB, v any) []byte {
	t.Helper()
	b, err := schema.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hello(t testing.TB, board string, conn, keys uint64) []byte {
	t.Helper()
	return encoded(t, &schema.Hello{V: 1, Board: board, Release: "test", Conn: conn, Now: schema.Time{Boot: 7}, Keys: keys})
}

// TestTwinChannel: a word on a twin is stored when its PUBACK comes, and answered after
// it; one that is not stored ends the connection.
func TestTwinChannel(t *testing.T) {
	t.Parallel()
	h, s := channels(t)
	s.slow = 50 * time.Millisecond
	cert := h.enrol(t, "b1")
	lost := make(chan error, 1)
	o := h.options("b1", &cert)
	o.OnConnectionLost = func(_ mqtt.Client, err error) { lost <- err }
	c := mqtt.NewClient(o)
	if err := finish(c.Connect()); err != nil {
		t.Fatal(err)
	}
	got := heard(t, c, "b1")
	say := func(u wire.Up) error { return finish(c.Publish("f/v1/default/b1/tw/r", 1, false, encoded(t, &u))) }
	if err := say(wire.Up{V: 1, Conn: 5}); err != nil || len(s.has()) != 0 || h.gate.Stats().Refused != 1 {
		t.Errorf("before hello: %v, stored %q, refused %d", err, s.has(), h.gate.Stats().Refused)
	}
	if err := finish(c.Publish("f/v1/default/b1/hello", 1, false, hello(t, "b1", 5, 0))); err != nil || next(t, got).Channel != schema.ChanHelloAck {
		t.Fatal(err)
	}
	for n := range uint64(3) {
		if err := say(wire.Up{V: 1, Conn: 5, Head: wire.Head{Counter: n}, Want: wire.WantHead}); err != nil || len(s.has()) != int(n)+1 {
			t.Fatalf("after PUBACK %d: %v, stored %q", n, err, s.has())
		}
		topic, p := nextWith(t, got)
		var d wire.Down
		if err := schema.Decode(p, &d); err != nil || topic.Channel != schema.ChanTwinDown || d.Conn != 5 || d.Head.Version != n {
			t.Errorf("answer %d: %s %+v %v", n, topic, d, err)
		}
	}
	if err := say(wire.Up{V: 1, Conn: 5, Head: wire.Head{Counter: 9}}); err != nil || s.has()[3] != "twin default/b1 9" {
		t.Errorf("one without an answer: %v", err)
	}
	for name, p := range map[string][]byte{"noise": []byte("noise"), "another connection": encoded(t, &wire.Up{V: 1, Conn: 4})} {
		before := h.gate.Stats().Refused
		if err := finish(c.Publish("f/v1/default/b1/tw/r", 1, false, p)); err != nil || h.gate.Stats().Refused != before+1 || len(s.has()) != 4 {
			t.Errorf("%s: %v, refused %d, stored %q", name, err, h.gate.Stats().Refused, s.has())
		}
	}
	s.fail.Store(true)
	if err := say(wire.Up{V: 1, Conn: 5, Want: wire.WantHead}); err == nil {
		t.Error("PUBACK for a word that was not stored")
	}
	select {
	case <-lost:
	case <-time.After(5 * time.Second):
		t.Error("the connection goes on after a word was not stored")
	}
	if len(got) != 0 {
		t.Errorf("answered all the same: %s", next(t, got))
	}
}

// TestResultChannel: a result is stored when its PUBACK comes, under the id of its topic
// alone.
func TestResultChannel(t *testing.T) {
	t.Parallel()
	h, s := channels(t)
	cert := h.enrol(t, "b1")
	c := h.connect(t, "b1", &cert)
	id := command.ID{1, 2, 3}
	r := &command.Report{V: 1, Result: command.Result{V: 1, ID: id, State: command.Done}}
	say := func(id string, p []byte) error { return finish(c.Publish("f/v1/default/b1/c/"+id+"/r", 1, false, p)) }
	if err := say(id.String(), encoded(t, r)); err != nil || !slices.Equal(s.has(), []string{"result default/b1 " + id.String() + " done"}) {
		t.Fatalf("%v, stored %q", err, s.has())
	}
	for name, err := range map[string]error{
		"another id": say(command.ID{9}.String(), encoded(t, r)), "noise": say(id.String(), []byte("noise")),
		"no result": say(id.String(), []byte{0xa1, 1, 1}),
	} {
		if err != nil || len(s.has()) != 1 {
			t.Errorf("%s: %v, stored %q", name, err, s.has())
		}
	}
	if n := h.gate.Stats().Refused; n != 3 {
		t.Errorf("%d refused, wants 3", n)
	}
	s.fail.Store(true)
	if err := say(id.String(), encoded(t, r)); err == nil {
		t.Error("PUBACK for a result that was not stored")
	}
}

// TestArrival: a board gets the key sets it lacks after the answer to its hello, in their
// order; Commands is told of it, which does not hold up the session.
func TestArrival(t *testing.T) {
	t.Parallel()
	h, s := channels(t)
	s.hellos = make(chan string) // nobody takes them yet
	h.gate.cfg.Keys = keys(3)
	cert := h.enrol(t, "b1")
	for conn, has := range []uint64{0, 2, 3, 7} {
		c := h.connect(t, "b1", &cert)
		got := heard(t, c, "b1")
		if err := finish(c.Publish("f/v1/default/b1/hello", 1, false, hello(t, "b1", uint64(conn)+1, has))); err != nil {
			t.Fatal(err)
		}
		if topic := next(t, got); topic.Channel != schema.ChanHelloAck {
			t.Fatalf("first came %s", topic)
		}
		for v := has + 1; v <= 3; v++ {
			if topic, p := nextWith(t, got); topic.Channel != schema.ChanKeys || len(p) != 1 || uint64(p[0]) != v {
				t.Errorf("a board with set %d got %s %v, wants %d", has, topic, p, v)
			}
		}
		topic, p := payload(t, "b1", uint64(conn)+1)
		if err := finish(c.Publish(topic, 1, false, p)); err != nil {
			t.Errorf("a record while Commands takes its time: %v", err)
		}
		if len(got) != 0 {
			t.Errorf("a board with set %d got more: %s", has, next(t, got))
		}
		c.Disconnect(0)
	}
	for range 2 { // one that waited in Hello, and one for all that came meanwhile
		select {
		case who := <-s.hellos:
			if who != "default/b1" {
				t.Errorf("told of %s", who)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("Commands is not told")
		}
	}
}

// TestSendDown: what is sent reaches the board it is for and no other; a board that is
// away, that has not said hello, or that takes nothing is told of as such.
func TestSendDown(t *testing.T) {
	t.Parallel()
	h, _ := channels(t)
	one, two := h.enrol(t, "b1"), h.enrol(t, "b2")
	id := command.ID{7}.String()
	if err := h.gate.SendCommand("default", "b1", id, []byte("x")); !errors.Is(err, ErrAway) {
		t.Errorf("to nobody: %v", err)
	}
	c, d := h.connect(t, "b1", &one), h.connect(t, "b2", &two)
	got, other := heard(t, c, "b1"), heard(t, d, "b2")
	if err := h.gate.SendCommand("default", "b1", id, []byte("x")); !errors.Is(err, ErrAway) {
		t.Errorf("before hello: %v", err)
	}
	for _, b := range []struct {
		c     mqtt.Client
		board string
		got   <-chan mqtt.Message
	}{{c, "b1", got}, {d, "b2", other}} {
		if err := finish(b.c.Publish("f/v1/default/"+b.board+"/hello", 1, false, hello(t, b.board, 3, 0))); err != nil || next(t, b.got).Channel != schema.ChanHelloAck {
			t.Fatal(err)
		}
	}
	if err := h.gate.SendCommand("default", "b1", id, []byte("do")); err != nil {
		t.Fatal(err)
	}
	if topic, p := nextWith(t, got); topic.Channel != schema.ChanCommand || topic.Tail != id || string(p) != "do" {
		t.Errorf("came %s %q", topic, p)
	}
	if err := h.gate.SendTwin("default", "b1", &wire.Down{V: 1, Conn: 3}); err != nil || next(t, got).Channel != schema.ChanTwinDown {
		t.Errorf("%v", err)
	}
	if err := h.gate.SendTwin("default", "b1", &wire.Down{V: 1, Conn: 2}); !errors.Is(err, ErrAway) {
		t.Errorf("of the connection before: %v", err)
	}
	for name, err := range map[string]error{
		"no id":     h.gate.SendCommand("default", "b1", "+", []byte("x")),
		"no body":   h.gate.SendCommand("default", "b1", id, nil),
		"too large": h.gate.SendCommand("default", "b1", id, make([]byte, schema.MaxPayload+1)),
	} {
		if err == nil || errors.Is(err, ErrAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(other) != 0 {
		t.Errorf("b2 heard %s", next(t, other))
	}
	c.Disconnect(0)
	deadline := time.Now().Add(5 * time.Second)
	for !errors.Is(h.gate.SendCommand("default", "b1", id, []byte("x")), ErrAway) {
		if time.Now().After(deadline) {
			t.Fatal("a board that left is sent to")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestSendBusy: a board that takes nothing is told of, and there is room left for the
// fleet's own words.
func TestSendBusy(t *testing.T) {
	t.Parallel()
	h, _ := channels(t)
	cert := h.enrol(t, "b1")
	o := h.options("b1", &cert)
	o.SetAutoAckDisabled(true) // it reads, and acknowledges nothing
	c := mqtt.NewClient(o)
	if err := finish(c.Connect()); err != nil {
		t.Fatal(err)
	}
	defer c.Disconnect(0)
	got := heard(t, c, "b1")
	if err := finish(c.Publish("f/v1/default/b1/hello", 1, false, hello(t, "b1", 3, 0))); err != nil || next(t, got).Channel != schema.ChanHelloAck {
		t.Fatal(err)
	}
	sent := 0
	for ; sent < 1000; sent++ {
		if err := h.gate.SendCommand("default", "b1", command.ID{1, byte(sent), byte(sent >> 8)}.String(), []byte("x")); err != nil {
			if !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
			break
		}
	}
	if want := maxInflight - keepRoom - 1; sent != want { // one place is the answer to hello
		t.Errorf("%d were sent, wants %d", sent, want)
	}
	for range sent {
		next(t, got)
	}
	if err := h.gate.tell(ingest.BoardKey{Tenant: "default", Board: "b1"}, 3, 0, nil); err != nil || next(t, got).Channel != schema.ChanHelloAck {
		t.Errorf("the fleet's own word: %v", err)
	}
}
