// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fulmar/agent/authority"
	"fulmar/agent/commands"
	"fulmar/agent/config"
	"fulmar/agent/shadow"
	"fulmar/command"
	"fulmar/command/dispatch"
	"fulmar/internal/peercred"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/twin"
)

// board is the real commands of a board with a valve, its real twin, its real authority of
// keys, and a server in front of them.
type board struct {
	*Server
	t      *testing.T
	path   string
	log    *syncBuffer
	svc    *commands.Service
	shadow *shadow.Shadow
	keys   *authority.Authority

	mu     sync.Mutex
	valve  float64
	moved  int
	access Access

	roots   []crypto.Signer
	version uint64
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// me is the user of this process as the server names it.
func me() string { return system{}.name(os.Geteuid()) }

func fresh(t *testing.T) *board {
	t.Helper()
	dir, err := os.MkdirTemp("", "l") // short: names of sockets are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	clock := schema.NewClock(1, 0)
	b := &board{t: t, path: filepath.Join(dir, onboard.Socket), log: new(syncBuffer), access: Access{Operators: []string{fmt.Sprint(os.Geteuid())}}}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	if b.keys, err = authority.Open(filepath.Join(dir, "trust"), log); err != nil {
		t.Fatal(err)
	}
	b.svc, err = commands.Open(commands.Config{
		Address: func() (string, string) { return "default", "dock-1" }, Dir: dir, Clock: clock, Now: b.keys.Now, Open: b.keys.Command, Operator: b.keys.Operator,
		Send: func(context.Context, string, []byte) error { return nil }, Log: log, User: b.offers(),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.shadow = shadow.New(shadow.Config{
		Tenant: "default", Board: "dock-1", Dir: filepath.Join(dir, "twin"), Clock: clock, BootKnown: true, Open: b.keys.Twin, Base: config.Default,
		Check: func(key string, _ twin.Value) error {
			if key == "limit.valve.max" {
				return errors.New("this board has no output valve")
			}
			return nil
		},
		Apply:  func(context.Context, *config.Config, map[string]twin.Value) error { return nil },
		Health: func() shadow.Health { return shadow.Health{} },
		Send:   func(context.Context, []byte) error { return nil }, Tell: func(schema.Report) {}, Log: log,
	})
	b.Server = New(Config{
		Path: b.path, Log: log, State: b, Name: func() (string, string) { return "default", "dock-1" },
		Access: func() Access {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.access
		},
		Commands: func() Commands { return b.svc }, Twin: func() Twin { return b.shadow },
	})
	return b
}

// start runs its parts until the end of the test.
func start(t *testing.T, change func(*board)) *board {
	t.Helper()
	b := fresh(t)
	if change != nil {
		change(b)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{b.svc.Run, b.shadow.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	l, err := listen(b.path)
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := b.serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return b
}

func (b *board) offers() []command.Offer {
	return []command.Offer{{
		Kind: command.Kind{Name: "set-valve", Lane: "normal", Effect: "moves a valve", Args: []command.Field{
			{Name: "valve", Type: command.Text, Required: true}, {Name: "percent", Type: command.Number, Required: true, Max: 200, Unit: "%"},
		}},
		Handler: command.Handler{Repeat: true, Check: func(args []byte) error {
			if a := valveArgs(args); a.Percent > 100 {
				return &command.Error{Code: "out-of-range", Text: "percent is over 100"}
			}
			return nil
		}, Do: func(_ context.Context, c command.Call) ([]byte, error) {
			c.Progress(50, "half way")
			b.mu.Lock()
			defer b.mu.Unlock()
			b.valve, b.moved = valveArgs(c.Args).Percent, b.moved+1
			return schema.Encode(map[string]any{"percent": b.valve})
		}},
	}, {
		Kind: command.Kind{Name: "talk", Lane: "long", Effect: "talks until it is ended"},
		Handler: command.Handler{Repeat: true, Lane: command.Long, Do: func(ctx context.Context, c command.Call) ([]byte, error) {
			text := string(bytes.Repeat([]byte("a"), schema.MaxText))
			for i := 0; ctx.Err() == nil; i++ {
				c.Progress(i%100, text)
				time.Sleep(100 * time.Microsecond)
			}
			return nil, ctx.Err()
		}},
	}}
}

type valveWanted struct {
	Valve   string  `cbor:"valve"`
	Percent float64 `cbor:"percent"`
}

func valveArgs(args []byte) (a valveWanted) {
	if schema.Decode(args, &a) != nil {
		return valveWanted{}
	}
	return a
}

func (b *board) State(context.Context) onboard.State {
	return onboard.State{Board: "dock-1", Tenant: "default", Link: onboard.Link{State: "waiting"}, Outputs: []onboard.Output{}, Rules: []onboard.Rule{}, Causes: []string{}}
}

// last is the newest command.
func (b *board) last() command.Report {
	b.t.Helper()
	all, err := b.svc.List(b.t.Context(), 1)
	if err != nil || len(all) != 1 {
		b.t.Fatal(all, err)
	}
	return all[0]
}

func (b *board) position() (float64, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.valve, b.moved
}

// client asks at the socket, with a connection for each request.
func client(path string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}

// ask gives the status and the body of an answer.
func (b *board) ask(method, path, body string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://board"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := client(b.path).Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// lines are the steps of an answer that waited.
func lines(t *testing.T, body string) (out []onboard.Step) {
	t.Helper()
	sc := bufio.NewScanner(bytes.NewReader([]byte(body)))
	for sc.Scan() {
		var s onboard.Step
		if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		out = append(out, s)
	}
	return out
}

// problem is the body of a refusal.
func problem(t *testing.T, body string) onboard.Problem {
	t.Helper()
	var p onboard.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return p
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fuzzBoard is a server whose commands are never begun: each is refused.
func fuzzBoard(t *testing.T) *board {
	b := fresh(t)
	b.access = Access{Operators: []string{"0"}}
	b.cfg.Commands = func() Commands { return still{b.svc} }
	return b
}

// still takes commands and does none.
type still struct{ *commands.Service }

func (still) Local(_ context.Context, _, name string, _ []byte, _ commands.Options) (command.Result, error) {
	return command.Result{V: schema.Version, State: command.Refused, Code: name}, nil
}

func (still) Cancel(context.Context, command.ID, string) (command.Result, error) {
	return command.Result{}, dispatch.ErrNotKnown
}

func (still) List(context.Context, int) ([]command.Report, error) { return nil, nil }

func contextOf(r *http.Request, p peercred.Peer) context.Context {
	return context.WithValue(r.Context(), connKey{}, p)
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}
