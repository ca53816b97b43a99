// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine starts a machine, where FULMAR_VM says that there is time for one.
func machine(t *testing.T, doors ...Door) *Machine {
	t.Helper()
	arch := os.Getenv("FULMAR_VM")
	if arch == "" {
		t.Skip("FULMAR_VM is not set to amd64 or arm64: no machine is booted")
	}
	cache, err := filepath.Abs("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Start(t.Context(), Options{Dir: t.TempDir(), Cache: cache, Suite: "bookworm", Arch: arch, Doors: doors})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	t.Logf("%s, KVM %v: %.1f s until a command runs, %.1f s by its own clock", arch, m.KVM, m.Booted.Seconds(), m.Uptime.Seconds())
	return m
}

// TestMachine: commands, files, doors, and what a power cut takes.
func TestMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	m := machine(t, Door{Port: 7, Address: l.Addr().String()})
	ctx := t.Context()
	out, err := m.ShellFor(ctx, 5*time.Minute, "systemctl is-system-running --wait || systemctl --failed --no-legend; systemd-analyze")
	if err != nil || !strings.HasPrefix(out, "running") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Log(out)

	if r, err := m.Run(ctx, Cmd{Args: []string{"sh", "-c", "cat; echo bad >&2; exit 7"}, Stdin: []byte("in")}); err != nil || r.Code != 7 || string(r.Stdout) != "in" || string(r.Stderr) != "bad\n" {
		t.Errorf("%+v, %v", r, err)
	}
	begin := time.Now()
	if r, err := m.Run(ctx, Cmd{Args: []string{"sh", "-c", "sleep 300 & sleep 300"}, Timeout: time.Second}); err != nil || !r.TimedOut || time.Since(begin) > 20*time.Second {
		t.Errorf("%+v, %v after %v", r, err, time.Since(begin))
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	begin = time.Now()
	if err := m.Write(ctx, "/root/big", big, 0o640); err != nil {
		t.Fatal(err)
	}
	t.Logf("3 MiB in: %v", time.Since(begin))
	if b, err := m.Read(ctx, "/root/big"); err != nil || !bytes.Equal(b, big) {
		t.Errorf("%d bytes came back of %d: %v", len(b), len(big), err)
	}

	// Twice, at once: a door is no single connection.
	talk := `for i in 1 2; do ( exec 3<>/dev/tcp/10.0.2.100/7; echo word$i >&3; sleep 1; read x <&3; echo $x ) & done; wait`
	if r, err := m.Run(ctx, Cmd{Args: []string{"bash", "-c", talk}}); err != nil || !strings.Contains(string(r.Stdout), "word1") || !strings.Contains(string(r.Stdout), "word2") {
		t.Errorf("through the door: %+v, %v\n%s", r, err, r.Stderr)
	}
	// No other way out: the host's loopback is there on 10.0.2.2 unless it is shut.
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if r, err := m.Run(ctx, Cmd{Args: []string{"timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/10.0.2.2/" + port}}); err != nil || r.Code == 0 {
		t.Errorf("the machine reached the host beside its door: %+v, %v", r, err)
	}

	if out, err := m.Shell(ctx, "echo kept >/root/kept; sync; echo lost >/root/lost"); err != nil {
		t.Fatal(err, out)
	}
	m.Cut()
	if err := m.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	if out, err := m.Shell(ctx, "cat /root/kept; ls -s /root/lost 2>/dev/null || echo gone"); err != nil || !strings.HasPrefix(out, "kept") {
		t.Errorf("after the cut: %q, %v", out, err)
	} else {
		t.Logf("after the cut, up in %.1f s: %q", m.Booted.Seconds(), out)
	}
	if took, err := m.Shutdown(ctx); err != nil {
		t.Error(err)
	} else {
		t.Logf("off in %v", took.Round(100*time.Millisecond))
	}
}
