// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"fulmar/agent/authority"
	"fulmar/agent/commands"
	"fulmar/agent/config"
	"fulmar/agent/local"
	"fulmar/agent/shadow"
	"fulmar/command"
	"fulmar/internal/exetest"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/twin"
)

// plant is what a board without hardware moves: a valve and a pump that is interlocked.
type plant struct {
	mu   sync.Mutex
	at   map[string]float64
	shut string // why, "" where it is not
}

func (p *plant) List() (out []commands.Output) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, unit := range map[string]string{"main": "%", "pump": ""} {
		out = append(out, commands.Output{Name: name, Unit: unit, Value: p.at[name], Known: true})
	}
	return out
}

func (p *plant) Set(_ context.Context, name string, v float64, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.shut != "":
		return &command.Error{Code: "safety-shutdown", Text: "outputs are held in their safe states: " + p.shut}
	case name == "pump" && p.at["main"] < 10:
		return &command.Error{Code: "interlocked", Text: "the pump runs dry while main is under 10 %"}
	}
	p.at[name] = v
	return nil
}

func (p *plant) Shutdown(_ context.Context, why string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.shut = map[string]float64{}, why
	return nil
}

func (p *plant) Release(context.Context, string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = ""
	return nil
}

func (p *plant) Safe() (bool, schema.Time, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shut != "", schema.Time{}, p.shut
}

// State is the board as a person sees it.
func (p *plant) State(context.Context) onboard.State {
	s := onboard.State{
		Board: "dock-1", Tenant: "default", Release: "1.2.3", At: time.Now(), Link: onboard.Link{State: "waiting", For: 1020},
		Autonomy: &onboard.Autonomy{State: "alone", For: 1020}, Rules: []onboard.Rule{{Name: "leak", State: "armed", For: 60, Fired: 2}}, Causes: []string{"link: no route to host"},
	}
	active, _, by := p.Safe()
	s.Safety = &onboard.Safety{Active: active, By: by}
	outs := p.List()
	slices.SortFunc(outs, func(a, b commands.Output) int { return int(a.Name[0]) - int(b.Name[0]) })
	for _, o := range outs {
		s.Outputs = append(s.Outputs, onboard.Output{Name: o.Name, Unit: o.Unit, Kind: "simulated", Value: &o.Value, State: "ok"})
	}
	return s
}

// startBoard starts a board without a link on the folder $WORK/board: its real commands,
// twin and keys. $SOCKET is where it is asked. An argument is a key set that it has learnt;
// with nobody as second one, this user may only look.
func startBoard(ts *testscript.TestScript, _ bool, args []string) {
	dir, err := os.MkdirTemp("", "b") // short: names of sockets are
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	log, clock, p := slog.New(slog.DiscardHandler), schema.NewClock(1, time.Hour), &plant{at: map[string]float64{}}
	keys, err := authority.Open(filepath.Join(dir, "trust"), log)
	ts.Check(err)
	access := local.Access{Operators: []string{fmt.Sprint(os.Geteuid())}}
	for i, a := range args {
		if i == 1 && a == "nobody" {
			access = local.Access{}
			continue
		}
		_, err := keys.Learn([]byte(ts.ReadFile(a)))
		ts.Check(err)
	}
	svc, err := commands.Open(commands.Config{
		Address: func() (string, string) { return "default", "dock-1" }, Dir: dir, Clock: clock, Now: keys.Now, Open: keys.Command, Operator: keys.Operator,
		Send: func(context.Context, string, []byte) error { return errors.New("no link") }, Log: log, Outputs: p, User: slow(),
	})
	ts.Check(err)
	sh := shadow.New(shadow.Config{
		Tenant: "default", Board: "dock-1", Dir: filepath.Join(dir, "twin"), Clock: clock, BootKnown: true, Open: keys.Twin, Base: config.Default,
		Check: func(string, twin.Value) error { return nil }, Apply: func(context.Context, *config.Config, map[string]twin.Value) error { return nil },
		Health: func() shadow.Health { return shadow.Health{} }, Send: func(context.Context, []byte) error { return errors.New("no link") },
		Tell: func(schema.Report) {}, Log: log,
	})
	srv := local.New(local.Config{
		Path: filepath.Join(dir, onboard.Socket), Access: func() local.Access { return access }, Name: func() (string, string) { return "default", "dock-1" },
		State: p, Commands: func() local.Commands { return svc }, Twin: func() local.Twin { return sh }, Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{svc.Run, sh.Run, srv.Run} {
		wg.Go(func() { _ = run(ctx) })
	}
	ts.Defer(func() {
		cancel()
		wg.Wait()
	})
	ts.Setenv("SOCKET", filepath.Join(dir, onboard.Socket))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if st, err := os.Lstat(filepath.Join(dir, onboard.Socket)); err == nil && st.Mode().Perm() == 0o660 {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("the board does not listen")
		}
	}
}

// slow is a command that runs until it is ended, and one that fails.
func slow() []command.Offer {
	return []command.Offer{{
		Kind: command.Kind{Name: "flush", Lane: "long", Effect: "flushes the pipe", User: true},
		Handler: command.Handler{Lane: command.Long, Do: func(ctx context.Context, c command.Call) ([]byte, error) {
			c.Progress(30, "pipe 3 of 10")
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}},
	}, {
		Kind: command.Kind{Name: "weigh", Lane: "normal", Effect: "weighs the tank", User: true},
		Handler: command.Handler{Do: func(context.Context, command.Call) ([]byte, error) {
			return nil, &command.Error{Code: "no-scale", Text: "the scale does not answer"}
		}},
	}}
}

// lastID sets $ID to the id in last.json, which fulmar local log --json wrote.
func lastID(ts *testscript.TestScript, _ bool, _ []string) {
	var log []onboard.Entry
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("last.json")), &log))
	ts.Setenv("ID", log[0].ID)
}

// public copies this program as fulmar to where all may run it, $PUBLIC.
func public(ts *testscript.TestScript, _ bool, _ []string) {
	dir, err := os.MkdirTemp("", "p")
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	exe, err := os.Executable()
	ts.Check(err)
	program, err := os.ReadFile(exe)
	ts.Check(err)
	ts.Check(exetest.Write(filepath.Join(dir, "fulmar"), program, 0o755))
	ts.Check(os.Chmod(dir, 0o755))
	ts.Setenv("PUBLIC", dir)
}
