// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/ingest/pictures"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

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

// abroad is a fleet behind somebody else's broker, and a board there.
type abroad struct {
	db           *store.DB
	foreign      *Foreign
	board        mqtt.Client
	acks, hellos chan []byte
}

func openAbroad(t *testing.T) *abroad {
	t.Helper()
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
	f, err := NewForeign(ForeignConfig{Address: addr, Username: "fleet", Password: "one two three", Pictures: blobs}, in, log)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- in.Run(ctx) }()
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	for end := time.Now().Add(10 * time.Second); !f.Stats().Connected; time.Sleep(10 * time.Millisecond) { // real sockets
		if time.Now().After(end) {
			t.Fatal("the fleet does not connect")
		}
	}
	a := &abroad{db: db, foreign: f, acks: make(chan []byte, 100), hellos: make(chan []byte, 1)}
	a.board = mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("b1").SetUsername("b1").SetPassword("four five six").SetAutoReconnect(false))
	if err := finish(a.board.Connect()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.board.Disconnect(0) })
	tok := a.board.SubscribeMultiple(map[string]byte{"f/v1/default/b1/ack": 1, "f/v1/default/b1/hello/ack": 1}, func(_ mqtt.Client, m mqtt.Message) {
		if m.Topic() == "f/v1/default/b1/ack" {
			a.acks <- m.Payload()
		} else {
			a.hellos <- m.Payload()
		}
	})
	if err := finish(tok); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestForeignBroker: a board behind a real Mosquitto gets the fleet's own
// acknowledgements, after its records are stored.
func TestForeignBroker(t *testing.T) {
	t.Parallel()
	a := openAbroad(t)
	hello, err := schema.Encode(&schema.Hello{V: 1, Board: "b1", Conn: 3, Now: schema.Time{Boot: 7}})
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(a.board.Publish("f/v1/default/b1/hello", 1, false, hello)); err != nil {
		t.Fatal(err)
	}
	var ha schema.HelloAck
	if err := schema.Decode(wait(t, a.hellos), &ha); err != nil || ha.Mode != schema.AckFleet || ha.Conn != 3 {
		t.Fatalf("hello/ack %+v, %v", ha, err)
	}
	for seq := range uint64(10) {
		topic, p := payload(t, "b1", seq+1)
		for range 2 { // each twice: both are acknowledged, one is stored
			if err := finish(a.board.Publish(topic, 1, false, p)); err != nil {
				t.Fatal(err)
			}
			var ack schema.Ack
			if err := schema.Decode(wait(t, a.acks), &ack); err != nil || ack.Class != schema.ClassMetric || ack.Epoch != 1 || ack.Ranges[0] != [2]uint64{seq + 1, seq + 1} {
				t.Fatalf("ack %+v, %v", ack, err)
			}
			var n uint64
			if err := a.db.Read.QueryRow("SELECT count(*) FROM telemetry").Scan(&n); err != nil || n != seq+1 {
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

// TestIncompletePicture: an index whose pieces have not all come is neither stored
// nor acknowledged, so that its board sends all again; a picture that is not what
// its index says, however often it comes, is taken in the end.
func TestIncompletePicture(t *testing.T) {
	t.Parallel()
	a := openAbroad(t)
	index := func(seq uint64, name string, pic []byte) []byte {
		t.Helper()
		rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSnapshot, Snapshot: &schema.Snapshot{
			Name: name, Size: int64(len(pic)), SHA256: sha256.Sum256(pic), Media: "image/jpeg", Source: "cam0",
		}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := schema.Encode(&schema.Message{V: 1, Board: "b1", Class: schema.ClassSnapshot, Epoch: 1, Records: []schema.SeqRecord{{Seq: seq, Payload: rec}}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	piece := func(name string, at int64, pic []byte) {
		t.Helper()
		c, err := schema.Encode(&schema.Chunk{V: 1, Offset: at, Total: int64(len(pic)), Data: pic[at:min(at+schema.MaxChunk, int64(len(pic)))]})
		if err != nil {
			t.Fatal(err)
		}
		if err := finish(a.board.Publish("f/v1/default/b1/blob/"+name, 1, false, c)); err != nil {
			t.Fatal(err)
		}
	}
	send := func(p []byte) {
		t.Helper()
		if err := finish(a.board.Publish("f/v1/default/b1/e/snapshot", 1, false, p)); err != nil {
			t.Fatal(err)
		}
	}
	dropped := func(n uint64) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); a.foreign.Stats().Dropped != n; time.Sleep(5 * time.Millisecond) { // real sockets
			if time.Now().After(end) {
				t.Fatalf("%d messages were not taken, wants %d", a.foreign.Stats().Dropped, n)
			}
		}
		if len(a.acks) > 0 {
			t.Fatal("the index of a picture that is not whole was acknowledged")
		}
	}
	rows := func() (n, has int) {
		t.Helper()
		if err := a.db.Read.QueryRow("SELECT count(*), coalesce(sum(has), 0) FROM snapshot").Scan(&n, &has); err != nil {
			t.Fatal(err)
		}
		return n, has
	}
	pic := bytes.Repeat([]byte("picture "), 10_000)
	piece("a.jpg", 0, pic)
	send(index(1, "a.jpg", pic))
	dropped(1)
	if n, _ := rows(); n != 0 {
		t.Fatalf("%d indexes are stored", n)
	}
	piece("a.jpg", schema.MaxChunk, pic)
	send(index(1, "a.jpg", pic))
	wait(t, a.acks)
	if n, has := rows(); n != 1 || has != 1 {
		t.Fatalf("%d indexes, %d pictures", n, has)
	}
	for try := range maxPictureTries {
		piece("b.jpg", 0, bytes.Repeat([]byte("damaged "), 100))
		send(index(2, "b.jpg", bytes.Repeat([]byte("picture "), 100)))
		dropped(uint64(2 + try))
	}
	send(index(2, "b.jpg", bytes.Repeat([]byte("picture "), 100)))
	wait(t, a.acks)
	if n, has := rows(); n != 2 || has != 1 {
		t.Fatalf("%d indexes, %d pictures, wants 2 and 1", n, has)
	}
}

// TestForeignHostile: a broker that sends what none sends, or takes the fleet's words
// and never says so, loses its connection with a reason.
func TestForeignHostile(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		after []byte // sent after the subscription was granted
		why   string
	}{
		"256 MB":          {[]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, "bytes or more"},
		"a PUBACK":        {[]byte{0x40, 2, 0, 99}, "never sent"},
		"the end":         {nil, "EOF"},
		"a long message":  {[]byte{0x30, 0x81, 0x90, 0x04}, "bytes or more"},
		"another CONNACK": {[]byte{0x20, 2, 0, 0}, "CONNACK"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				if _, err := packets.ReadPacket(conn); err != nil {
					return
				}
				_, _ = conn.Write([]byte{0x20, 2, 0, 0})
				p, err := packets.ReadPacket(conn)
				if err != nil {
					return
				}
				id := p.Details().MessageID
				_, _ = conn.Write(append([]byte{0x90, 2 + foreignFilters, byte(id >> 8), byte(id)}, bytes.Repeat([]byte{1}, foreignFilters)...))
				_, _ = conn.Write(c.after)
				if c.after != nil {
					_, _ = packets.ReadPacket(conn)
				}
			}()
			f, err := NewForeign(ForeignConfig{Address: l.Addr().String()}, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := f.once(ctx); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, wants %q", err, c.why)
			}
		})
	}
}

// TestWordsNotTaken: the fleet's words that the broker does not acknowledge are
// bounded and end the connection.
func TestWordsNotTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{lost: make(chan error, 1), answers: make(chan mqtt.Token, maxAnswers), client: deaf{}}
		done := make(chan error, 1)
		go func() { done <- w.stay(context.Background()) }()
		begin := time.Now()
		w.say("f/v1/default/b1/ack", nil)
		if err := <-done; err == nil || !errors.Is(err, errNoAnswer) || time.Since(begin) > 2*foreignTimeout {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		for range maxAnswers + 1 {
			w.say("f/v1/default/b1/ack", nil)
		}
		if err := <-w.lost; err == nil {
			t.Error("more words wait than are bounded")
		}
	})
}

// deaf is a client whose broker acknowledges nothing.
type deaf struct{ mqtt.Client }

func (deaf) Publish(string, byte, bool, any) mqtt.Token { return never{} }

type never struct{ mqtt.Token }

func (never) Done() <-chan struct{} { return nil }
