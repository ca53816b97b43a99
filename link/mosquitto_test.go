// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/link/guard"
	"fulmar/schema"
)

// mosquitto is the real broker of the Debian package, which can be killed.
type mosquitto struct {
	bin, conf, addr string
	cmd             *exec.Cmd
}

// newMosquitto starts a broker on a free port of the loopback; with a password it
// lets in nobody else.
func newMosquitto(t *testing.T, password string, more ...string) *mosquitto {
	t.Helper()
	bin := tool(t, "mosquitto")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &mosquitto{bin: bin, addr: free.Addr().String(), conf: filepath.Join(t.TempDir(), "mosquitto.conf")}
	_ = free.Close()
	conf := []string{
		fmt.Sprintf("listener %d 127.0.0.1", free.Addr().(*net.TCPAddr).Port), "persistence false", "log_dest none",
		"max_inflight_messages 0", "max_queued_messages 0", "set_tcp_nodelay true", "user root",
	}
	conf = append(conf, more...)
	if password == "" {
		conf = append(conf, "allow_anonymous true")
	} else {
		file := filepath.Join(filepath.Dir(b.conf), "passwords")
		if out, err := exec.Command(tool(t, "mosquitto_passwd"), "-b", "-c", file, "dock-1", password).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
		conf = append(conf, "allow_anonymous false", "password_file "+file)
	}
	if err := os.WriteFile(b.conf, []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	t.Cleanup(b.kill)
	return b
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
		_, err = os.Stat(path)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed: apt-get install mosquitto", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

func (b *mosquitto) start(t *testing.T) {
	t.Helper()
	b.cmd = exec.Command(b.bin, "-c", b.conf)
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; {
		c, err := net.Dial("tcp", b.addr)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("mosquitto does not listen: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kill ends the broker as a power cut would.
func (b *mosquitto) kill() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}

func (b *mosquitto) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", b.addr)
}

// listener is a fleet behind the broker: it hears records and, in mode fleet, gives
// its own word.
type listener struct {
	mu   sync.Mutex
	mode schema.AckMode
	seen map[uint64]int
}

func (l *listener) has() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

func (l *listener) hear(c mqtt.Client, m mqtt.Message) {
	t, err := schema.ParseTopic(m.Topic())
	if err != nil {
		return
	}
	var msg schema.Message
	var hello schema.Hello
	switch t.Channel {
	case schema.ChanHello:
		if schema.Decode(m.Payload(), &hello) != nil {
			return
		}
		t.Channel = schema.ChanHelloAck
		publish(c, t, &schema.HelloAck{V: 1, Conn: hello.Conn, Mode: l.mode, ReconnectMs: 50})
	case schema.ChanEvent:
		if schema.Decode(m.Payload(), &msg) != nil {
			return
		}
		a := &schema.Ack{V: 1, Class: msg.Class, Epoch: msg.Epoch}
		l.mu.Lock()
		for _, r := range msg.Records {
			l.seen[r.Seq]++
			a.Ranges = append(a.Ranges, [2]uint64{r.Seq, r.Seq})
		}
		l.mu.Unlock()
		if l.mode == schema.AckFleet {
			t.Channel, t.Tail = schema.ChanAck, ""
			publish(c, t, a)
		}
	}
}

// publish does not wait: it is called where the client must not be waited for.
func publish(c mqtt.Client, t schema.Topic, v any) {
	if b, err := schema.Encode(v); err == nil {
		go c.Publish(t.String(), 0, false, b)
	}
}

// listen connects a listener, and again after each loss.
func listen(t *testing.T, b *mosquitto, mode schema.AckMode, user, password string) *listener {
	t.Helper()
	l := &listener{mode: mode, seen: map[uint64]int{}}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + b.addr).SetClientID("listener").SetCleanSession(true).
		SetUsername(user).SetPassword(password).SetStore(guard.NoStore{}).SetMaxReconnectInterval(100 * time.Millisecond).
		SetAutoReconnect(true).SetConnectRetry(true).SetConnectRetryInterval(50 * time.Millisecond).
		SetOnConnectHandler(func(c mqtt.Client) { c.Subscribe("f/v1/default/dock-1/#", 0, l.hear) })
	c := mqtt.NewClient(o)
	if token := c.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal("the listener does not connect: ", token.Error())
	}
	t.Cleanup(func() { c.Disconnect(100) })
	return l
}

func await(t *testing.T, what string, limit time.Duration, is func() bool) {
	t.Helper()
	for begin := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// small gives few records for each read, so that many messages are made.
type small struct{ *memory }

func (s small) Read(c schema.Class, from uint64, n, size int) ([]schema.Stored, error) {
	return s.memory.Read(c, from, min(n, 8), size)
}

// TestMosquittoKilled: Mosquitto is killed four times while 10,000 records go
// through it. In mode fleet each of them arrives. In mode broker its word is taken:
// what it had not acknowledged when it was killed arrives, and what it had, it may
// have taken along; that is counted and belongs to what the mode means.
func TestMosquittoKilled(t *testing.T) {
	const total, kills = 10_000, 4
	for _, mode := range []schema.AckMode{schema.AckFleet, schema.AckBroker} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			b := newMosquitto(t, "")
			l := listen(t, b, mode, "", "")
			m := newMemory()
			for range total {
				m.add(schema.ClassEvent, make([]byte, 300))
			}
			cfg := Config{
				Tenant: "default", Board: "dock-1", Dial: b.dial, Mode: &mode, Window: 16,
				AckTimeout: time.Second, ReconnectWindow: 50 * time.Millisecond,
			}
			s, err := New(cfg, small{m}, m)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { _ = s.Run(ctx); close(done) }()
			defer func() { cancel(); <-done }()
			var freed uint64 // when the broker was killed
			var freedBefore []uint64
			for i := range kills {
				await(t, "progress", 30*time.Second, func() bool { return s.Status().Acked >= uint64(i+1)*total/(kills+2) })
				b.kill()
				time.Sleep(20 * time.Millisecond)
				freed = s.Status().Acked
				freedBefore = append(freedBefore, freed)
				if left := m.left(); left == 0 {
					t.Error("all was freed before the last kill: the test tests nothing")
				}
				time.Sleep(50 * time.Millisecond)
				b.start(t)
			}
			await(t, "all freed", 60*time.Second, func() bool { return m.left() == 0 })
			if mode == schema.AckFleet {
				if l.has() != total {
					t.Errorf("%d of %d arrived", l.has(), total)
				}
			} else {
				time.Sleep(200 * time.Millisecond) // the listener's last
				l.mu.Lock()
				for seq := freed + 1; seq <= total; seq++ {
					if l.seen[seq] == 0 {
						t.Errorf("%d was not acknowledged by the broker that was killed, and did not arrive", seq)
						break
					}
				}
				l.mu.Unlock()
			}
			st := s.Status()
			t.Logf("%d generations, %d records, %d resent, %d arrived", st.Generation, st.Published, st.Resent, l.has())
			if mode == schema.AckBroker {
				t.Logf("%d records were acknowledged by the broker and lost by it, at kills after %d", total-l.has(), freedBefore)
			}
			if st.Generation <= kills {
				t.Errorf("%d connections over %d kills", st.Generation, kills)
			}
		})
	}
}

// TestSoakMosquittoSmallPackets: a real broker that takes no packet over 6,000 bytes:
// messages become smaller, the one record that is too large alone is given up, and all
// others arrive. The pauses between some tens of connections make it minutes.
func TestSoakMosquittoSmallPackets(t *testing.T) {
	if os.Getenv("FULMAR_SOAK") == "" {
		t.Skip("takes minutes: set FULMAR_SOAK")
	}
	t.Parallel()
	const total = 1000
	b := newMosquitto(t, "", "max_packet_size 6000")
	l := listen(t, b, schema.AckBroker, "", "")
	m := newMemory()
	for i := range total {
		if i == 300 {
			m.add(schema.ClassEvent, make([]byte, 7000))
		}
		m.add(schema.ClassEvent, make([]byte, 1000))
	}
	mode := schema.AckBroker
	s, err := New(Config{Tenant: "default", Board: "dock-1", Dial: b.dial, Mode: &mode, ReconnectWindow: time.Millisecond}, m, m)
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, s)
	await(t, "all freed", 15*time.Minute, func() bool { return m.left() == 0 })
	time.Sleep(time.Second) // the listener's last
	if m.refused[301] != schema.ReasonRefused || len(m.refused) != 1 || l.has() != total {
		t.Errorf("%d of %d arrived, refused %v, %+v", l.has(), total, m.refused, s.Status())
	}
	t.Logf("%+v", s.Status())
}

// TestMosquittoPassword: the right password delivers, a wrong one says so.
func TestMosquittoPassword(t *testing.T) {
	t.Parallel()
	const password = "not-a-secret-of-anybody"
	b := newMosquitto(t, password)
	l := listen(t, b, schema.AckBroker, "dock-1", password)
	mode := schema.AckBroker
	for _, try := range []struct {
		password string
		good     bool
	}{{"wrong", false}, {password, true}} {
		m := newMemory()
		for range 100 {
			m.add(schema.ClassEvent, record(t))
		}
		s, err := New(Config{
			Tenant: "default", Board: "dock-1", Dial: b.dial, Mode: &mode, ReconnectWindow: time.Millisecond,
			Username: "dock-1", Password: try.password,
		}, m, m)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		if try.good {
			await(t, "all delivered", 30*time.Second, func() bool { return m.left() == 0 && l.has() == 100 })
		} else {
			await(t, "the refusal", 30*time.Second, func() bool { return s.Status().Err != nil })
			if err := s.Status().Err; !strings.Contains(strings.ToLower(err.Error()), "not authori") || strings.Contains(err.Error(), try.password) {
				t.Errorf("the status says %v", err)
			}
			if m.left() != 100 {
				t.Errorf("%d records were freed", 100-m.left())
			}
		}
		cancel()
		<-done
	}
}
