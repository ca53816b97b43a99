// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	fleetcommands "fulmar/cmd/fulmar-fleet/commands"
	"fulmar/cmd/fulmar/commands"
	"fulmar/fleet"
	"fulmar/fleet/ca"
	"fulmar/fleet/registry"
	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/vault"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"fulmar": func() {
			os.Exit(commands.Run(context.Background(), "1.2.3", os.Args[1:], os.Stdout, os.Stderr))
		},
		"fulmar-fleet": func() {
			os.Exit(fleetcommands.Run(context.Background(), "1.2.3", os.Args[1:], os.Stdout, os.Stderr))
		},
	})
}

// TestTranscripts runs each file of testdata in a folder of its own.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Condition: func(cond string) (bool, error) { return cond == "root" && os.Geteuid() == 0, nil },
		Dir:       "testdata", UpdateScripts: os.Getenv("FULMAR_UPDATE") == "1", RequireExplicitExec: true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ends": ends, "deadboard": deadBoard, "fleet": startFleet, "asks": asks, "joined": joined, "board": startBoard, "lastid": lastID, "public": public, "programs": programs, "spoil": spoil, "many": many,
		},
	})
}

// ends CODE PROGRAM ARGS... runs a program that must end with an exit code.
func ends(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: ends CODE PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("it ended with %d", code)
	}
}

// deadboard DIR PUBLIC.pem makes the spool of a board that died, encrypted: three
// batches of one reading, the first acknowledged, and an event.
func deadBoard(ts *testscript.TestScript, _ bool, args []string) {
	pub, err := vault.ReadRecoveryPublic(ts.MkAbs(args[1]))
	ts.Check(err)
	holder, err := vault.OpenKeyFile(ts.MkAbs("spool.key"))
	ts.Check(err)
	s, err := storage.Open(storage.Config{Dir: ts.MkAbs(args[0]), Owner: "dock-1", NoSync: true, Holder: holder, Recovery: pub})
	ts.Check(err)
	at := schema.Time{Boot: 1, Mono: int64(time.Hour), Wall: 1_700_000_000_000}
	add := func(c schema.Class, r *schema.Record) {
		b, err := schema.EncodeRecord(r)
		ts.Check(err)
		_, err = s.Append(context.Background(), c, b)
		ts.Check(err)
	}
	for n := range 3 {
		add(schema.ClassMetric, &schema.Record{Kind: schema.KindSamples, Time: at, Samples: &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{float64(n) + 0.5}}})
	}
	add(schema.ClassEvent, &schema.Record{Kind: schema.KindEvent, Time: at, Event: &schema.Event{Source: "cam0", Boxes: []schema.Box{{Score: 0.9}}}})
	ts.Check(s.Flush())
	ts.Check(s.Ack(schema.ClassMetric, s.Cursors()[schema.ClassMetric].Epoch, 1, 1))
	ts.Check(s.Close())
}

// fleet starts a real fleet on the folder $WORK/fleet and sets $ADDRESS.
func startFleet(ts *testscript.TestScript, _ bool, _ []string) {
	srv, err := fleet.New(fleet.Config{Data: ts.MkAbs("fleet"), Listen: "127.0.0.1:0", MQTT: "127.0.0.1:0"}, func(string) {}, slog.New(slog.DiscardHandler))
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	ts.Defer(func() {
		cancel()
		<-done
	})
	ts.Setenv("ADDRESS", srv.HTTPSAddr())
	pin, err := ca.Pin(ts.MkAbs("fleet/ca"))
	ts.Check(err)
	ts.Setenv("PIN", hex.EncodeToString(pin[:]))
}

// joined NAME N: the board NAME with the key of number N is in, by a join token.
func joined(ts *testscript.TestScript, _ bool, args []string) {
	reg, err := registry.Open(ts.MkAbs("fleet"))
	ts.Check(err)
	n, err := strconv.ParseUint(args[1], 10, 8)
	ts.Check(err)
	token, err := reg.NewJoinToken(context.Background(), registry.DefaultTenant, "", 1, time.Minute)
	ts.Check(err)
	_, _, err = reg.Enrol(context.Background(), registry.Enrolment{Board: args[0], Secret: token, KeyMode: schema.KeySoftware, KeyHash: [sha256.Size]byte{byte(n)}, From: "192.0.2.1"},
		func(string) (*ca.Leaf, error) {
			return &ca.Leaf{Serial: "1", NotAfter: time.Now().Add(time.Hour)}, nil
		})
	ts.Check(err)
	ts.Check(reg.Close())
}

// asks NAME N: the board NAME with the key of number N asks to join.
func asks(ts *testscript.TestScript, _ bool, args []string) {
	reg, err := registry.Open(ts.MkAbs("fleet"))
	ts.Check(err)
	n, err := strconv.ParseUint(args[1], 10, 8)
	ts.Check(err)
	_, _, err = reg.Enrol(context.Background(), registry.Enrolment{Board: args[0], KeyMode: schema.KeySoftware, KeyHash: [sha256.Size]byte{byte(n)}, From: "192.0.2.1", Ask: true},
		func(string) (*ca.Leaf, error) {
			return &ca.Leaf{Serial: "1", NotAfter: time.Now().Add(time.Hour)}, nil
		})
	var waits *registry.Waiting
	if err != nil && !errors.As(err, &waits) {
		ts.Fatalf("%v", err)
	}
	ts.Check(reg.Close())
}
