// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fulmar/fleet/ingest/pictures"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/ingest"
	"fulmar/fleet/store"
	"fulmar/schema"
)

// mosquitto starts a real broker with two users and returns its address.
func mosquitto(t *testing.T) (addr string, kill func()) {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mosquitto is not installed")
		}
		t.Skip("mosquitto is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = l.Close()
	dir := t.TempDir()
	pw := filepath.Join(dir, "pw")
	if err := os.WriteFile(pw, []byte("fleet:one two three\nb1:four five six\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mosquitto_passwd", "-U", pw).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v %s", err, out)
	}
	conf := filepath.Join(dir, "m.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous false\npassword_file %s\nuser root\n", port, pw)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() { _ = cmd.Process.Kill(); _, _ = cmd.Process.Wait() }
	t.Cleanup(kill)
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			return addr, kill
		}
		time.Sleep(20 * time.Millisecond) // another process starts
	}
	t.Fatal("mosquitto does not answer")
	return "", nil
}

// TestForeignBroker: a board behind a real Mosquitto gets the fleet's own
// acknowledgements, after its records are stored.
func TestForeignBroker(t *testing.T) {
	t.Parallel()
	addr, _ := mosquitto(t)
	dir := t.TempDir()
	db, err := store.OpenLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	blobs, err := pictures.New(filepath.Join(dir, "pictures"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	in := ingest.New(ingest.Config{}, db, blobs, log)
	ctx, cancel := context.WithCancel(context.Background())
	f, err := NewForeign(ForeignConfig{Address: addr, Username: "fleet", Password: "one two three"}, in, log)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- in.Run(ctx) }()
	go func() { done <- f.Run(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}()
	for end := time.Now().Add(10 * time.Second); !f.Stats().Connected; time.Sleep(10 * time.Millisecond) { // real sockets
		if time.Now().After(end) {
			t.Fatal("the fleet does not connect")
		}
	}

	board := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("b1").SetUsername("b1").SetPassword("four five six").SetAutoReconnect(false))
	if err := finish(board.Connect()); err != nil {
		t.Fatal(err)
	}
	defer board.Disconnect(0)
	acks, hellos := make(chan []byte, 100), make(chan []byte, 1)
	tok := board.SubscribeMultiple(map[string]byte{"f/v1/default/b1/ack": 1, "f/v1/default/b1/hello/ack": 1}, func(_ mqtt.Client, m mqtt.Message) {
		if m.Topic() == "f/v1/default/b1/ack" {
			acks <- m.Payload()
		} else {
			hellos <- m.Payload()
		}
	})
	if err := finish(tok); err != nil {
		t.Fatal(err)
	}
	hello, err := schema.Encode(&schema.Hello{V: 1, Board: "b1", Conn: 3, Now: schema.Time{Boot: 7}})
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(board.Publish("f/v1/default/b1/hello", 1, false, hello)); err != nil {
		t.Fatal(err)
	}
	var ha schema.HelloAck
	if err := schema.Decode(wait(t, hellos), &ha); err != nil || ha.Mode != schema.AckFleet || ha.Conn != 3 {
		t.Fatalf("hello/ack %+v, %v", ha, err)
	}
	for seq := range uint64(10) {
		topic, p := payload(t, "b1", seq+1)
		for range 2 { // each twice: both are acknowledged, one is stored
			if err := finish(board.Publish(topic, 1, false, p)); err != nil {
				t.Fatal(err)
			}
			var a schema.Ack
			if err := schema.Decode(wait(t, acks), &a); err != nil || a.Class != schema.ClassMetric || a.Epoch != 1 || a.Ranges[0] != [2]uint64{seq + 1, seq + 1} {
				t.Fatalf("ack %+v, %v", a, err)
			}
			var n uint64
			if err := db.Read.QueryRow("SELECT count(*) FROM telemetry").Scan(&n); err != nil || n != seq+1 {
				t.Fatalf("acknowledged %d, %d rows, %v", seq+1, n, err)
			}
		}
	}
}

func wait(t *testing.T, c <-chan []byte) []byte {
	t.Helper()
	select {
	case b := <-c:
		return b
	case <-time.After(10 * time.Second):
		t.Fatal("no answer from the fleet")
		return nil
	}
}
