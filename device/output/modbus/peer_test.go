// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package modbus

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// python is Debian's own, for which python3-pymodbus is.
const python = "/usr/bin/python3"

// need skips a test whose program is not there, and fails it in CI.
func need(t *testing.T, what string, args ...string) {
	t.Helper()
	if err := exec.Command(what, args...).Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s %s: %v; run: make test", what, strings.Join(args, " "), err)
		}
		t.Skipf("%s %s: %v", what, strings.Join(args, " "), err)
	}
}

// start runs a program until the test ends; its process group is its own.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, said.String())
		}
	})
}

// until tries for ten seconds.
func until(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func n(i int) *int { return &i }

// peer starts pymodbus and gives its address.
func tcpPeer(t *testing.T) string {
	t.Helper()
	need(t, python, "-c", "import pymodbus.server")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	start(t, python, "peer.py", "tcp", port)
	until(t, "pymodbus", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	return "tcp:127.0.0.1:" + port
}

// rtuPeer starts pymodbus behind a pair of pseudo terminals.
func rtuPeer(t *testing.T) string {
	t.Helper()
	need(t, python, "-c", "import pymodbus.server, serial")
	need(t, "socat", "-V")
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	start(t, "socat", "pty,raw,echo=0,link="+ours, "pty,raw,echo=0,link="+theirs)
	until(t, "socat", func() error {
		_, err := os.Stat(theirs)
		return err
	})
	start(t, python, "peer.py", "rtu", theirs)
	return "rtu:" + ours
}

// TestPeer: pymodbus takes what is set and tells it, over TCP and over a serial line.
func TestPeer(t *testing.T) {
	t.Parallel()
	for name, peer := range map[string]func(*testing.T) string{"tcp": tcpPeer, "rtu": rtuPeer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := peer(t)
			buses := NewBuses()
			defer buses.Close()
			make := func(c Config) *Output {
				c.Address = address
				if c.Device == 0 {
					c.Device = 1
				}
				if err := c.Validate(0, 1); err != nil {
					t.Fatal(err)
				}
				o, err := buses.Output("x", c)
				if err != nil {
					t.Fatal(err)
				}
				return o
			}
			coil := make(Config{OnCoil: n(7)})
			until(t, "the first set", func() error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				return coil.Set(ctx, 1)
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			wantGet(ctx, t, coil, 1)
			wantGet(ctx, t, make(Config{OnCoil: n(6)}), 0)
			wantGet(ctx, t, make(Config{OnCoil: n(8)}), 0)
			valve := make(Config{Register: n(10), Scale: 0.1})
			for _, v := range []float64{42.5, 0, 6553.5} {
				if err := valve.Set(ctx, v); err != nil {
					t.Fatal(err)
				}
				wantGet(ctx, t, valve, v)
			}
			drive := make(Config{Register: n(11), Signed: true})
			if err := drive.Set(ctx, -300); err != nil {
				t.Fatal(err)
			}
			wantGet(ctx, t, drive, -300)
			wantGet(ctx, t, make(Config{Register: n(11)}), 65236)
			wantGet(ctx, t, make(Config{Register: n(11), PositionInput: n(23)}), 1023)
			wantGet(ctx, t, make(Config{Register: n(11), PositionRegister: n(10), Scale: 0.1}), 6553.5)
			if err := coil.Set(ctx, 0); err != nil {
				t.Fatal(err)
			}
			wantGet(ctx, t, coil, 0)
			if err := make(Config{Register: n(100)}).Set(ctx, 1); err == nil || !strings.Contains(err.Error(), "no such coil or register (exception 2)") {
				t.Error("register 100 that is not there:", err)
			}
			wantGet(ctx, t, coil, 0) // and the line goes on
			late, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if err := make(Config{OnCoil: n(1), Device: 9}).Set(late, 1); err == nil {
				t.Error("a device that is not there took a value")
			}
			wantGet(ctx, t, valve, 6553.5)
		})
	}
}

func wantGet(ctx context.Context, t *testing.T, o *Output, want float64) {
	t.Helper()
	v, known, err := o.Get(ctx)
	if d := v - want; err != nil || !known || d > 1e-9 || d < -1e-9 {
		t.Fatalf("reads %v, %v, %v; wants %v", v, known, err, want)
	}
}

// TestConnectionGone: a device that was turned off and on is asked over a new connection.
func TestConnectionGone(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // answers once on each connection, then closes it
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 12)
			if _, err := c.Read(b); err == nil {
				_, _ = c.Write(append(b[:4:4], 0, 5, b[6], b[7], 2, 0, 9))
			}
			_ = c.Close()
		}
	}()
	buses := NewBuses()
	defer buses.Close()
	o, _ := buses.Output("x", Config{Address: "tcp:" + l.Addr().String(), Device: 1, Register: n(0)})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for range 5 {
		wantGet(ctx, t, o, 9)
	}
	if _, err := buses.Output("y", Config{Address: "tcp:" + l.Addr().String(), Baud: 9600}); err == nil {
		t.Error("two outputs of one line with different bauds were taken")
	}
}

// TestChecksum: the examples of "MODBUS over Serial Line", 6.2.2, and of the common
// listings: 02 07 has the checksum 41 12 (low byte first).
func TestChecksum(t *testing.T) {
	t.Parallel()
	if got := crc16([]byte{0x02, 0x07}); got != 0x1241 {
		t.Errorf("%04x", got)
	}
}

// TestStrangers: what is no answer to the question is an error, and none is taken for one.
func TestStrangers(t *testing.T) {
	t.Parallel()
	frame := func(b ...byte) []byte {
		c := crc16(b)
		return append(b, byte(c), byte(c>>8))
	}
	for name, answer := range map[string][]byte{
		"empty": {}, "short": {1, 3}, "cut": frame(1, 3, 2, 0)[:4], "checksum": {1, 3, 2, 0, 9, 0, 0},
		"another device": frame(2, 3, 2, 0, 9), "no function": frame(1, 99, 2, 0, 9), "long": append([]byte{1, 3, 255}, bytes.Repeat([]byte{0}, 300)...),
	} {
		if pdu, err := readRTU(bytes.NewReader(answer), 1); err == nil {
			t.Errorf("rtu, %s: % x", name, pdu)
		}
	}
	for name, answer := range map[string][]byte{
		"empty": {}, "not modbus": {0, 1, 0, 7, 0, 5, 1, 3, 2, 0, 9}, "no body": {0, 1, 0, 0, 0, 1, 1}, "long": {0, 1, 0, 0, 1, 255, 1}, "cut": {0, 1, 0, 0, 0, 9, 1, 3},
	} {
		if _, _, pdu, err := readMBAP(bytes.NewReader(answer)); err == nil {
			t.Errorf("tcp, %s: % x", name, pdu)
		}
	}
}

func FuzzRTU(f *testing.F) {
	f.Add([]byte{1, 3, 2, 0, 9, 0x78, 0x42}, byte(1))
	f.Add([]byte{1, 0x83, 2, 0xc0, 0xf1}, byte(1))
	f.Fuzz(func(t *testing.T, b []byte, device byte) {
		pdu, err := readRTU(bytes.NewReader(b), device)
		if err == nil && (len(pdu) < 2 || len(pdu) > maxPDU || b[0] != device) {
			t.Errorf("% x", pdu)
		}
		if err == nil {
			_ = exception(pdu)
		}
	})
}

func FuzzMBAP(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0, 5, 1, 3, 2, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, pdu, err := readMBAP(bytes.NewReader(b)); err == nil && (len(pdu) < 2 || len(pdu) > maxPDU) {
			t.Errorf("% x", pdu)
		}
	})
}

func TestScale(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{}, {Scale: 0.1}, {Scale: 0.5, Signed: true}, {Signed: true}} {
		for _, v := range []float64{0, 1, 99.5, -1, 3000, 40000, 65535} {
			raw, ok := c.raw(v)
			if back := c.value(raw); ok && (back-v > c.scale()/2+1e-9 || v-back > c.scale()/2+1e-9) {
				t.Errorf("%+v: %v is %s", c, v, strconv.FormatFloat(back, 'g', -1, 64))
			}
			if fits := v >= 0 || c.Signed; !fits && ok {
				t.Errorf("%+v holds %v", c, v)
			}
		}
	}
}
