// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package foreign

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
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/ingest/pictures"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/fxamacker/cbor/v2"

	"fulmar/fleet/ingest"
	"fulmar/fleet/store"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/storage"
)

// mosquitto starts a real broker with two users and returns its address.
func mosquitto(t *testing.T) (addr string, restart func()) {
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
	var cmd *exec.Cmd
	start := func() {
		t.Helper()
		cmd = exec.Command(path, "-c", conf)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			if c, err := net.Dial("tcp", addr); err == nil {
				_ = c.Close()
				return
			}
			time.Sleep(20 * time.Millisecond) // another process starts
		}
		t.Fatal("mosquitto does not answer")
	}
	start()
	t.Cleanup(func() { _ = cmd.Process.Kill(); _, _ = cmd.Process.Wait() })
	return addr, func() {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		start()
	}
}

func finish(tok mqtt.Token) error {
	if !tok.WaitTimeout(10 * time.Second) {
		return errors.New("no answer in 10 s")
	}
	return tok.Error()
}

func payload(t testing.TB, board string, seq uint64) (topic string, p []byte) {
	t.Helper()
	now := schema.Time{Boot: 1, Mono: time.Now().UnixNano(), Wall: time.Now().UnixMilli()}
	rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Time: now, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{1}}})
	if err != nil {
		t.Fatal(err)
	}
	p, err = schema.Encode(&schema.Message{V: 1, Board: board, Class: schema.ClassMetric, Epoch: 1, Sent: now, Records: []schema.SeqRecord{{Seq: seq, Payload: rec}}})
	if err != nil {
		t.Fatal(err)
	}
	return schema.MessageTopic("default", board, schema.ClassMetric).String(), p
}

// abroad is a fleet behind somebody else's broker, and a board there.
type abroad struct {
	addr         string
	restart      func() // kills the broker and starts it again
	db           *store.DB
	in           *ingest.Ingest
	foreign      *Client
	board        mqtt.Client
	acks, hellos chan []byte
}

func openAbroad(t *testing.T, withBoard bool) *abroad {
	t.Helper()
	addr, restart := mosquitto(t)
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
	f, err := New(Config{Address: addr, Username: "fleet", Password: "one two three", Pictures: blobs}, in, log)
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
	a := &abroad{addr: addr, restart: restart, db: db, in: in, foreign: f, acks: make(chan []byte, 100), hellos: make(chan []byte, 1)}
	if !withBoard {
		return a
	}
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
	a := openAbroad(t, true)
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
	a := openAbroad(t, true)
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
			f, err := New(Config{Address: l.Addr().String()}, nil, slog.New(slog.DiscardHandler))
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

// TestBrokerKilled: a whole board's link and spool and a whole ingest on either side of
// Mosquitto, which is killed four times under 10,000 records. Every record is in the
// ledger once, and the spool is empty.
func TestBrokerKilled(t *testing.T) {
	t.Parallel()
	const total, kills = 10_000, 4
	a := openAbroad(t, false)
	spool, err := storage.Open(storage.Config{Dir: t.TempDir(), Clock: schema.NewClock(7, 0), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	mode := schema.AckFleet
	s, err := link.New(link.Config{
		Tenant: "default", Board: "b1", Username: "b1", Password: "four five six", Mode: &mode, Clock: schema.NewClock(7, 0),
		Dial:       func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", a.addr) },
		AckTimeout: 2 * time.Second, ReconnectWindow: 100 * time.Millisecond, Window: 16,
	}, few{spool}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{spool.Run, s.Run} {
		wg.Add(1)
		go func() { defer wg.Done(); _ = run(ctx) }()
	}
	defer func() { cancel(); wg.Wait(); _ = spool.Close() }()
	for i := range total {
		rec, err := schema.EncodeRecord(&schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{float64(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := spool.Append(ctx, schema.ClassMetric, rec); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 { // the queue is bounded
			if err := spool.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !is(); time.Sleep(2 * time.Millisecond) { // real processes
			if time.Now().After(end) {
				t.Fatalf("not within a minute: %s; %+v, %+v", what, s.Status(), a.in.Stats())
			}
		}
	}
	for i := range uint64(kills) {
		until("progress", func() bool { return s.Status().Acked >= (i+1)*total/(kills+2) })
		if s.Status().Acked == total {
			t.Fatal("all was freed before the last kill: the test tests nothing")
		}
		a.restart()
	}
	until("all freed", func() bool { return s.Status().Acked >= total })
	st := a.in.Stats()
	var rows, arrived, dups uint64
	if err := a.db.Read.QueryRow("SELECT (SELECT count(*) FROM telemetry), (SELECT sum(arrived) FROM stream), (SELECT sum(dups) FROM stream)").Scan(&rows, &arrived, &dups); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v, %d repeats turned away", s.Status(), dups)
	if rows != total || arrived != total || st.Records != total {
		t.Errorf("%d rows and %d arrived of %d records; ingest %+v", rows, arrived, total, st)
	}
	for _, c := range spool.Stats().Classes {
		if c.Outstanding != 0 {
			t.Errorf("%d records are left in the spool", c.Outstanding)
		}
	}
}

// few gives few records at a time, so that there are many messages.
type few struct{ *storage.Spool }

func (f few) Read(c schema.Class, from uint64, n, size int) ([]schema.Stored, error) {
	return f.Spool.Read(c, from, min(n, 10), size)
}

// TestUnreadableAbroad: behind somebody else's broker the same rules hold. What can
// never be read is booked as lost and acknowledged, what a newer fleet can read is
// neither.
func TestUnreadableAbroad(t *testing.T) {
	t.Parallel()
	a := openAbroad(t, true)
	say := func(topic string, v any) {
		t.Helper()
		mode, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			t.Fatal(err)
		}
		p, err := mode.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := finish(a.board.Publish("f/v1/default/b1/"+topic, 1, false, p)); err != nil {
			t.Fatal(err)
		}
	}
	message := func(version uint8, board string, first uint64) *schema.Message {
		return &schema.Message{V: version, Board: board, Class: schema.ClassMetric, Epoch: 9, Records: []schema.SeqRecord{{Seq: first, Payload: []byte{0xff}}, {Seq: first + 1, Payload: []byte{0xff}}}}
	}
	say("t/host", message(2, "b1", 1)) // answered with silence: the next word is of another message
	say("hello", &schema.Hello{V: 2, Board: "b1", Conn: 5})
	var ha schema.HelloAck
	if err := schema.Decode(wait(t, a.hellos), &ha); err != nil || ha.Conn != 5 || ha.RetryAfterMs != newerAway.Milliseconds() {
		t.Errorf("hello/ack %+v, %v", ha, err)
	}
	for _, c := range []struct {
		board string
		first uint64
	}{{"b1", 3}, {"b2", 7}} {
		say("t/host", message(1, c.board, c.first))
		var ack schema.Ack
		if err := schema.Decode(wait(t, a.acks), &ack); err != nil || len(ack.Ranges) != 1 || ack.Ranges[0] != [2]uint64{c.first, c.first + 1} {
			t.Errorf("ack %+v, %v", ack, err)
		}
	}
	var heard, lost, told int
	if err := a.db.Read.QueryRow(`SELECT heard, lost, (SELECT count(*) FROM report WHERE subject = 'fleet/version' AND severity = 2) FROM stream`).Scan(&heard, &lost, &told); err != nil || heard != 8 || lost != 4 || told != 1 {
		t.Errorf("heard of %d, lost %d, told %d, %v", heard, lost, told, err)
	}
	if st := a.foreign.Stats(); st.Newer != 2 || st.Dropped != 0 || st.Refused != 1 {
		t.Errorf("%+v", st)
	}
}
