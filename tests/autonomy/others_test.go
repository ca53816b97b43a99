// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/agent/identity"
	"fulmar/command"
	"fulmar/schema"
	"fulmar/schema/rest"
	"fulmar/twin/wire"
)

// TestAnotherBoard: a board whose key is in a stranger's hands speaks for its neighbour: it
// forges results and twins of it, gives it commands, and replays those that were signed for
// itself. The fleet takes none of it and the neighbour hears none of it.
func TestAnotherBoard(t *testing.T) {
	t.Parallel()
	h, p := newHouse(t), newField(t)
	h.start(board, "", plain(p))
	thief := h.start("dock-2", "", "sensors: {synthetic: 1}\n")
	h.ready()
	h.linked("dock-2", true)
	h.done(h.valve(time.Minute, 10))
	h.wants(board, "first", map[string]any{"app.x": 1})
	h.synced(map[string]string{"app.x": "1"})
	h.stop(thief)

	envelopes := make(chan []byte, 8)
	c := h.as("dock-2", func(m []byte) { envelopes <- m })
	theirs := h.give(time.Hour, "read-sensor-batch", "", "for dock-2", "dock-2")
	var replay []byte
	select {
	case replay = <-envelopes:
	case <-time.After(30 * time.Second):
		t.Fatal("the fleet's command for dock-2 did not come to who has its key")
	}
	c.Disconnect(0)

	h.up.Cut() // so that what is open of dock-1 stays so
	h.linked(board, false)
	open := h.valve(time.Hour, 20)
	id, err := command.ParseID(h.state(open).ID)
	if err != nil {
		t.Fatal(err)
	}
	forged := command.Report{V: 1, Result: command.Result{V: 1, ID: id, State: command.Done, Text: "forged"}}
	forgedTwin := wire.Up{V: 1, Conn: 1}
	for topic, payload := range map[string][]byte{
		"dock-1/c/" + id.String() + "/r":                   encoded(t, &forged),
		"dock-1/tw/r":                                      encoded(t, &forgedTwin),
		"dock-1/c/" + h.state(theirs).ID:                   replay,
		"dock-2/c/" + h.state(theirs).ID:                   replay,
		"dock-1/tw/d":                                      replay,
		"dock-1/keys":                                      replay,
		"dock-1/c/" + id.String() + "/../../../dock-1/c/x": replay,
	} {
		c := h.as("dock-2", nil)
		if err := acked(c.Publish("f/v1/default/"+topic, 1, false, payload)); err == nil {
			t.Errorf("a message of dock-2 on %s was acknowledged", topic)
		}
		c.Disconnect(0)
	}
	// On its own topic it may speak, and is not believed.
	c = h.as("dock-2", nil)
	_ = acked(c.Publish("f/v1/default/dock-2/c/"+id.String()+"/r", 1, false, encoded(t, &forged)))
	c.Disconnect(0)
	time.Sleep(time.Second)
	if s := h.state(open); s.State != rest.CommandQueued && s.State != rest.CommandSent {
		t.Errorf("a command of dock-1 that it never had is %+v", s)
	}
	h.up.Heal()
	h.done(open)
	h.done(h.valve(time.Minute, 30))
	h.synced(map[string]string{"app.x": "1"})
	h.once(p, 10, 20, 30)
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	b, err := schema.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// as connects to the gateway itself with the key and the certificate of a board, as
// somebody who has its disk, and says hello; hear gets the commands for it.
func (h *house) as(name string, hear func(payload []byte)) mqtt.Client {
	h.t.Helper()
	e := &identity.Enroller{Dir: filepath.Join(h.BoardDir(name), "identity"), Fleet: h.HTTPS, Board: name, Mode: schema.KeySoftware, Log: slog.New(slog.DiscardHandler)}
	id, err := e.Enrol(h.t.Context()) // it is enrolled
	if err != nil {
		h.t.Fatal(err)
	}
	o := mqtt.NewClientOptions().AddBroker("ssl://" + h.MQTT).SetClientID(name).SetAutoReconnect(false).SetProtocolVersion(4).
		SetConnectTimeout(5 * time.Second).SetTLSConfig(id.TLS(h.MQTT))
	c := mqtt.NewClient(o)
	if err := acked(c.Connect()); err != nil {
		h.t.Fatalf("as %s: %v", name, err)
	}
	h.t.Cleanup(func() { c.Disconnect(0) })
	if hear == nil {
		return c
	}
	root := "f/v1/default/" + name
	if err := acked(c.Subscribe(root+"/c/+", 1, func(_ mqtt.Client, m mqtt.Message) { hear(m.Payload()) })); err != nil {
		h.t.Fatal(err)
	}
	hello := &schema.Hello{V: 1, Board: name, Release: "stolen", Conn: 1 << 60, Now: schema.Time{Boot: 7}, Facts: map[string]string{"os": "linux"}}
	if err := acked(c.Publish(root+"/hello", 1, false, encoded(h.t, hello))); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// acked waits until the broker has acknowledged, or gives why it has not.
func acked(t mqtt.Token) error {
	if !t.WaitTimeout(time.Second) {
		return errors.New("not acknowledged")
	}
	return t.Error()
}
