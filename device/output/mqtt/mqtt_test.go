// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/usr/bin/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed; run: make test", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

// broker is a real Mosquitto, which can be killed and started again.
type broker struct {
	t         *testing.T
	addr, cfg string
	cmd       *exec.Cmd
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, addr: l.Addr().String(), cfg: filepath.Join(t.TempDir(), "mosquitto.conf")}
	_ = l.Close()
	_, port, _ := net.SplitHostPort(b.addr)
	passwords := b.cfg + ".passwords"
	if out, err := exec.Command(tool(t, "mosquitto_passwd"), "-b", "-c", passwords, "fulmar", "secret").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := fmt.Sprintf("listener %s 127.0.0.1\npersistence false\nuser root\nallow_anonymous false\npassword_file %s\nlog_dest none\n", port, passwords)
	if err := os.WriteFile(b.cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.kill)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	b.cmd = exec.Command(tool(b.t, "mosquitto"), "-c", b.cfg)
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", b.addr)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			b.t.Fatal(err)
		}
	}
}

func (b *broker) kill() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		b.cmd = nil
	}
}

func (b *broker) config(t *testing.T) Config {
	t.Helper()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{Broker: b.addr, Username: "fulmar", PasswordFile: password, Topic: "hall/lamp/set", StateTopic: "hall/lamp/state"}
}

func made(t *testing.T, c Config, name string) *Output {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	o := New(name, c, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = o.Close() })
	return o
}

// TestMosquitto: what is set arrives as it is configured, what the device says is read,
// and a broker that went away is found again.
func TestMosquitto(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	lamp := b.config(t)
	lamp.On, lamp.Off, lamp.StateField = "ON", "OFF", "state"
	// The device is the same driver the other way round: it hears set and says state.
	device := b.config(t)
	device.Topic, device.StateTopic = lamp.StateTopic, lamp.Topic
	device.On, device.Off = "ON", "OFF"
	l, d := made(t, lamp, "lamp"), made(t, device, "device")
	if _, known, err := d.Get(ctx); known || err != nil {
		t.Fatal("something was heard before it was said", err)
	}
	if _, known, err := l.Get(ctx); known || err != nil {
		t.Fatal("a state before there was one", err)
	}
	if err := l.Set(ctx, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { v, known, err := d.Get(ctx); return fmt.Sprint(v, known, err) }, "1 true <nil>")
	say := made(t, Config{Broker: b.addr, Username: "fulmar", PasswordFile: lamp.PasswordFile, Topic: lamp.StateTopic, Payload: "{\"n\":1,\"state\":{value}}", Retain: true}, "say")
	if err := say.Set(ctx, 0.5); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string { v, known, err := l.Get(ctx); return fmt.Sprint(v, known, err) }, "0.5 true <nil>")

	b.kill()
	short, stop := context.WithTimeout(ctx, 500*time.Millisecond)
	defer stop()
	if err := l.Set(short, 0); err == nil {
		t.Error("a broker that is not there took a value")
	}
	b.start()
	if err := l.Set(ctx, 0); err != nil {
		t.Error(err)
	}
	// The new connection knows nothing of what was said on the old one.
	if _, known, _ := l.Get(ctx); known {
		t.Error("a state of an earlier connection is told as known")
	}
}

// TestRefused: a broker that does not let it in is said, and nothing is set.
func TestRefused(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	c := b.config(t)
	c.Username = "nobody"
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := made(t, c, "x").Set(ctx, 1); err == nil || !strings.Contains(err.Error(), "connect to "+b.addr) {
		t.Error(err)
	}
}

// TestSilent: a broker that takes a connection and says nothing costs no more than the time.
func TestSilent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := made(t, Config{Broker: l.Addr().String(), Topic: "x"}, "x").Set(ctx, 1); err == nil {
		t.Error("a silent broker took a value")
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func eventually(t *testing.T, got func() string, want string) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	for got() != want {
		if time.Now().After(end) {
			t.Fatalf("got %s, wants %s", got(), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestHear(t *testing.T) {
	t.Parallel()
	c := Config{On: "ON", Off: "OFF"}
	field := Config{On: "ON", Off: "OFF", StateField: "s"}
	for _, x := range []struct {
		c    Config
		in   string
		want string
	}{
		{c, "ON", "1"},
		{c, " OFF\n", "0"},
		{c, "12.5", "12.5"},
		{c, "on", "error"},
		{c, "", "error"},
		{c, "NaN", "error"},
		{c, "Inf", "error"},
		{field, `{"s":"ON"}`, "1"},
		{field, `{"s":7}`, "7"},
		{field, `{"s":"7"}`, "7"},
		{field, `{"t":7}`, "error"},
		{field, "7", "error"},
		{field, `{"s":{}}`, "error"},
		{field, "null", "error"},
	} {
		v, err := x.c.hear([]byte(x.in))
		got := fmt.Sprint(v)
		if err != nil {
			got = "error"
		}
		if got != x.want {
			t.Errorf("%s: %s, wants %s", x.in, got, x.want)
		}
	}
}

func FuzzHear(f *testing.F) {
	f.Add([]byte(`{"s":"ON"}`), true)
	f.Add([]byte("12"), false)
	f.Fuzz(func(t *testing.T, b []byte, field bool) {
		c := Config{On: "ON", Off: "OFF"}
		if field {
			c.StateField = "s"
		}
		if v, err := c.hear(b); err == nil && (v != v || v-v != 0) {
			t.Errorf("%q is %v", b, v)
		}
	})
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"broker:": {Topic: "a"}, "topic:": {Broker: "a:1", Topic: "a/#"}, "state_topic:": {Broker: "a:1", Topic: "a", StateTopic: "+"},
		"on_payload, off_payload": {Broker: "a:1", Topic: "a", On: "x"}, "payload: has no": {Broker: "a:1", Topic: "a", Payload: "on"},
		"ca_file: is given": {Broker: "a:1", Topic: "a", CAFile: "/x"}, "password_file": {Broker: "a:1", Topic: "a", PasswordFile: "x"},
		"state_field": {Broker: "a:1", Topic: "a", StateField: "x"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, wants %q", err, want)
		}
	}
}
