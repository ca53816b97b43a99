// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/ota"
	"fulmar/ota/install/installtest"
	"fulmar/ota/install/rootfs/wire"
	"fulmar/ota/release"
	"fulmar/schema"
)

// helper stands for fulmar-rootfs at its socket: one call a connection.
type helper struct {
	mu    sync.Mutex
	asked []string
	mute  bool // it says that it cannot
	stuck bool // nothing is in force before the board starts again
	// restarts: it starts it again; else it cannot.
	restarts bool
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
		if h.stuck {
			a.Standing = wire.NotYet
		}
		if err != nil || h.mute || h.stuck && !h.restarts && q.Verb == wire.VerbRestart {
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

// TestMachine: an update that takes effect with a restart of the machine asks for one, and
// where there is none a person is told.
func TestMachine(t *testing.T) {
	t.Parallel()
	for _, stuck := range []bool{false, true} {
		b := newBoard(t)
		b.rootfs, b.objects = filepath.Join(t.TempDir(), "rootfs.sock"), t.TempDir()
		l, err := net.Listen("unix", b.rootfs)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		h := &helper{stuck: true}
		go h.serve(l)
		if !stuck {
			h.mu.Lock()
			h.restarts = true
			h.mu.Unlock()
		}
		warned := make(chan schema.Report, 64)
		b.report = func(r schema.Report) { warned <- r }
		s, stop := b.service(t)
		ready(t, s)
		c, paths := installtest.Files(t, "rootfs", "36.5", map[string]string{"system.img": "an image"})
		raw, err := os.ReadFile(paths["system.img"])
		if err == nil {
			err = os.WriteFile(filepath.Join(b.objects, c.Files[0].Tree.String()), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		m := &release.Manifest{V: 1, Release: "36.5", Epoch: 1, Components: []release.Component{*c}}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.updater.Offer(ota.Order{
			Rollout: "r-1", Attempt: 1, Act: release.ActInstall, Component: "rootfs", Release: "36.5", Manifest: m, Raw: text, Hash: sha256.Sum256(text),
		}); err != nil {
			t.Fatal(err)
		}
		said := false
		for end := time.After(20 * time.Second); ; {
			h.mu.Lock()
			asked := slices.Contains(h.asked, wire.VerbRestart)
			h.mu.Unlock()
			if asked && (said || !stuck) {
				break
			}
			select {
			case r := <-warned:
				said = said || r.State == "switch" && r.Severity == schema.SeverityAlarm && strings.Contains(r.Text, "start it anew")
				continue
			case <-time.After(20 * time.Millisecond):
				continue
			case <-end:
			}
			t.Fatalf("stuck %v: asked %v, said %v; %+v", stuck, h.asked, said, *s.updater.Status().Components["rootfs"])
		}
		stop()
	}
}
