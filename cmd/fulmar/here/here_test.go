// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package here

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	t.Parallel()
	if out, err := Run(t.Context(), "sh", "-c", "echo a"); out != "a\n" || err != nil {
		t.Error(out, err)
	}
	var exit *ExitError
	if _, err := Run(t.Context(), "sh", "-c", "echo why >&2; exit 3"); !errors.As(err, &exit) || exit.Code != 3 || err.Error() != "why" {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := Run(ctx, "sh", "-c", "sleep 20 & sleep 20"); err == nil || !strings.Contains(err.Error(), "no answer in time") || time.Since(begin) > 5*time.Second {
		t.Error(err, time.Since(begin)) // a grandchild holds the pipe
	}
	if _, err := Run(t.Context(), "/none/x"); err == nil {
		t.Error("a program that is not there ran")
	}
	if out, err := Run(t.Context(), "sh", "-c", "head -c 5000000 /dev/zero"); err != nil || len(out) != maxAnswer {
		t.Error(len(out), err)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "here") // a socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var auth string
	serve := func(network, address string) string {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			auth = r.Header.Get("Authorization")
			switch r.URL.Path {
			case "/healthz":
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte(`{"ok":false,"causes":["link: x"],"link":"waiting","identity":{"state":"enrolling","refusal":"token"}}`))
			case "/metrics":
				_, _ = w.Write([]byte("# HELP a b\nfulmar_link_acked_total 5\nfulmar_x{class=\"a b} 7\"} 2\nfulmar_x{class=\"b\"} 1.5 1700000\nbad\nworse x\n{} 1\n"))
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		})}
		t.Cleanup(func() { _ = srv.Close() })
		go func() { _ = srv.Serve(l) }()
		return l.Addr().String()
	}
	serve("unix", filepath.Join(dir, "status.sock"))
	port := serve("tcp", "127.0.0.1:0")
	for _, listen := range []string{"", "unix:" + filepath.Join(dir, "status.sock"), port} {
		c := &Config{Data: dir}
		c.Status.Listen, c.Status.TokenFile = listen, token
		s, err := Ask(c)
		if err != nil {
			t.Fatal(err)
		}
		h, err := s.Health(t.Context())
		if err != nil || h.Identity == nil || h.Identity.Refusal != "token" || h.Causes[0] != "link: x" {
			t.Errorf("%q: %+v, %v", listen, h, err)
		}
		m, err := s.Metrics(t.Context())
		if err != nil || m["fulmar_link_acked_total"] != 5 || m["fulmar_x"] != 3.5 {
			t.Errorf("%q: %v, %v", listen, m, err)
		}
		if want := map[bool]string{true: "Bearer secret"}[listen == port]; auth != want {
			t.Errorf("%q: %q", listen, auth)
		}
	}
	c := &Config{Data: "/none"}
	if s, err := Ask(c); err != nil {
		t.Error(err)
	} else if _, err := s.Health(t.Context()); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "http://") {
		t.Error(err)
	}
	c.Status.Listen = "off"
	if _, err := Ask(c); !errors.Is(err, ErrOff) {
		t.Error(err)
	}
}

// TestIdentity: what lies in another user's folder is not followed out of it.
func TestIdentity(t *testing.T) {
	t.Parallel()
	data, out := t.TempDir(), t.TempDir()
	if _, err := ReadIdentity(data); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(out, "identity.json"), `{"board":"stolen"}`)
	if err := os.Symlink(out, filepath.Join(data, "identity")); err != nil {
		t.Fatal(err)
	}
	if id, err := ReadIdentity(data); err == nil {
		t.Errorf("a link out of the folder was followed: %+v", id)
	}
	if _, err := SetIdentityAside(data); err == nil {
		t.Error("a file out of the folder was moved")
	}
	if err := os.Remove(filepath.Join(data, "identity")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(data, "identity"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(filepath.Join(data, "identity/identity.json"), `{"board":"dock-1","tenant":"t"}`)
	if id, err := ReadIdentity(data); err != nil || id.Board != "dock-1" {
		t.Error(id, err)
	}
	back, err := SetIdentityAside(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadIdentity(data); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := back(); err != nil {
		t.Fatal(err)
	}
	if id, err := ReadIdentity(data); err != nil || id.Board != "dock-1" {
		t.Error(id, err)
	}
	put(filepath.Join(data, "identity/identity.json"), `{"board":`)
	if _, err := ReadIdentity(data); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
}

// TestPainter: no colour but on a terminal.
func TestPainter(t *testing.T) {
	t.Parallel()
	if got := Painter(new(bytes.Buffer))(Bad, "word"); got != "word" {
		t.Errorf("%q", got)
	}
}

func FuzzMetrics(f *testing.F) {
	f.Add([]byte("a 1\nb{x=\"}\"} 2\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseMetrics(b) })
}
