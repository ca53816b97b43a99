// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bufio"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"fulmar/agent/config"
	"fulmar/ota"
	"fulmar/ota/install/rootfs/wire"
)

// helper stands for fulmar-rootfs at its socket: one call a connection.
type helper struct {
	mu    sync.Mutex
	asked []string
	mute  bool // it says that it cannot
}

func (h *helper) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		q, err := wire.ReadRequest(bufio.NewReader(c))
		h.mu.Lock()
		h.asked = append(h.asked, q.Verb)
		a := wire.Answer{Version: "36.4.3", Standing: wire.OnTrial, Restart: true}
		if err != nil || h.mute {
			a = wire.Answer{Error: "nvbootctrl does not answer"}
		}
		h.mu.Unlock()
		_ = wire.Write(c, a)
		_ = c.Close()
	}
}

// TestSystem: the root file system can be updated where fulmar-rootfs listens, and only there.
func TestSystem(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "rootfs.sock")
	cfg := config.Default()
	cfg.Data = t.TempDir()
	open := func() *parts {
		return openParts(&Config{Config: func() config.Config { return cfg }, Rootfs: socket, Log: slog.New(slog.DiscardHandler)}, &cfg)
	}
	none := func(why string) {
		t.Helper()
		if p := open(); strings.Contains(p.kinds(), "rootfs") || p.installer("rootfs") != nil || len(p.versions(t.Context())) > 0 {
			t.Errorf("%s: it can update %q", why, p.kinds())
		}
	}
	none("no socket")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none("a file in its place")
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	h := &helper{mute: true}
	go h.serve(l)
	p := open()
	if !strings.Contains(p.kinds(), "rootfs") {
		t.Fatalf("it can update %q alone", p.kinds())
	}
	if v := p.versions(t.Context()); len(v) > 0 {
		t.Errorf("versions %v of a helper that cannot tell", v)
	}
	h.mu.Lock()
	h.mute = false
	h.mu.Unlock()
	for range 3 {
		if v := p.versions(t.Context())["rootfs"]; v != "36.4.3" {
			t.Errorf("version %q", v)
		}
	}
	token := "36.4.4-0123456789abcdef"
	in := p.installer("rootfs")
	if r, err := in.Switch(t.Context(), token); r != ota.RestartMachine || err != nil {
		t.Errorf("switch: %v, %v", r, err)
	}
	if st, _, err := in.Look(t.Context(), token); st != ota.OnTrial || err != nil {
		t.Errorf("look: %v, %v", st, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if got := strings.Join(h.asked, " "); got != "status status switch look" { // what runs is asked until it is known
		t.Errorf("it was asked %q", got)
	}
}
