// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/identity"
	"fulmar/device"
	"fulmar/schema"
	"fulmar/tpm/tpmtest"
)

// inDir makes an agent of a folder, with more config.
func inDir(t *testing.T, dir, extra string) *Agent {
	t.Helper()
	path := filepath.Join(dir, "fulmard.yaml")
	text := fmt.Sprintf("board: dock-1\ndata: %s/data\nfleet: {address: '127.0.0.1:1', pin: '%064d'}\ninfer: {mode: 'off'}\nsensors: {synthetic: 3}\n%s", dir, 0, extra)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(cfg, Options{Root: device.NewRoot("/"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// running runs an agent until stop is called; the stop is one in order.
func running(t *testing.T, a *Agent) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once atomic.Bool
	stop = func() {
		if once.Swap(true) {
			return
		}
		begin := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("the stop took %v", d)
		}
	}
	t.Cleanup(stop)
	return stop
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a unix socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func kept(a *Agent) uint64 { return a.spool.Stats().Classes[schema.ClassMetric].Outstanding }

// TestSpoolAndTPM walks a spool from a key file to a TPM, to a cleared one, and to none.
func TestSpoolAndTPM(t *testing.T) {
	t.Parallel()
	dir, chip := shortDir(t), tpmtest.Start(t)
	in := func(extra string) *Agent {
		a := inDir(t, dir, fmt.Sprintf("tpm: {path: '%s'}\n", chip.Path())+extra)
		t.Cleanup(a.chip.Close)
		return a
	}
	fill := func(a *Agent, want uint64, kind string) {
		t.Helper()
		st := a.spool.Stats()
		if st.Memory != "" || st.Keys == nil || st.Keys.Kind != kind || len(st.Keys.Lost) > 0 {
			t.Fatalf("keys %+v, memory %q, wants keys held by %s", st.Keys, st.Memory, kind)
		}
		for range 10 {
			if _, err := a.spool.Append(t.Context(), schema.ClassEvent, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if n := a.spool.Stats().Classes[schema.ClassEvent].Outstanding; n != want {
			t.Errorf("%d events are kept, wants %d", n, want)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a.chip.Close() // one client at a time
	}
	fill(in("key: {mode: software}\n"), 10, "file")
	fill(in("key: {mode: tpm}\n"), 20, "tpm")
	fill(in(""), 30, "tpm") // auto: what a TPM holds stays with it
	if err := os.Remove(filepath.Join(dir, "data", "spool.key")); err != nil {
		t.Fatal(err)
	}
	fill(in(""), 40, "tpm")
	// The TPM is away: nothing is given up, the board works from memory and says so.
	chip.Kill()
	a := in("")
	if st := a.spool.Stats(); st.Memory == "" || !strings.Contains(strings.Join(a.Health().Causes, "\n"), "records stay in memory") {
		t.Errorf("without the TPM: %+v, causes %q", st, a.Health().Causes)
	}
	if _, err := a.spool.Append(t.Context(), schema.ClassAlarm, []byte("x")); err != nil {
		t.Error(err)
	}
	_ = a.Close() // says what was only in memory
	chip.Run(t)
	fill(in(""), 50, "tpm")
	// Another TPM: what was kept is lost and told, and the spool goes on.
	chip = tpmtest.Start(t)
	a = in("")
	if st := a.spool.Stats(); st.Memory != "" || st.Keys == nil || len(st.Keys.Lost) == 0 {
		t.Errorf("with another TPM: keys %+v, memory %q", st.Keys, st.Memory)
	}
	stop := running(t, a)
	until(t, "the report of lost keys", func() bool {
		return slices.ContainsFunc((&board{Agent: a}).said(t), func(r schema.Report) bool { return r.Subject == "spool_key" && r.State == "lost" })
	})
	if _, err := a.spool.Append(t.Context(), schema.ClassEvent, []byte("new")); err != nil {
		t.Error(err)
	}
	stop()
}

// TestHangingTPM: a TPM that hangs from the start on, or later, stops neither the
// sampler nor the spool nor the end of the program.
func TestHangingTPM(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	var hang atomic.Bool
	p.Answer = func([]byte) ([]byte, bool) {
		if hang.Load() {
			<-end
			return nil, false
		}
		return nil, true
	}
	a := inDir(t, shortDir(t), fmt.Sprintf("key: {mode: tpm}\ntpm: {path: '%s'}\n", p.Path()))
	if st := a.spool.Stats(); st.Memory != "" {
		t.Fatal(st.Memory)
	}
	stop := running(t, a)
	until(t, "samples", func() bool { return kept(a) >= 2 })
	hang.Store(true)
	before := kept(a)
	until(t, "samples with a TPM that hangs", func() bool { return kept(a) >= before+2 })
	if _, err := a.spool.Append(t.Context(), schema.ClassAlarm, []byte("x")); err != nil {
		t.Error(err)
	}
	stop()
}

// TestRequiredTPM: without a TPM that the config wants there is no identity; the board
// stays up, samples, and says why.
func TestRequiredTPM(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	a := inDir(t, dir, fmt.Sprintf("tpm: {path: %s/none, required: true}\nspool: {encrypt: file}\n", dir))
	running(t, a)
	until(t, "tpm_missing in health", func() bool {
		h := a.Health()
		return h.Link == string(identity.StateNoTPM) && h.Identity != nil && h.Identity.State == identity.StateNoTPM &&
			strings.Contains(strings.Join(h.Causes, "\n"), "there is no TPM")
	})
	until(t, "the alarm", func() bool {
		return slices.ContainsFunc((&board{Agent: a}).said(t), func(r schema.Report) bool { return r.Subject == "identity" && r.State == "tpm_missing" })
	})
	until(t, "samples", func() bool { return a.scheduler.Stats().Ticks >= 2 })
	if _, err := os.Stat(filepath.Join(dir, "data", "identity", "board.key")); err == nil {
		t.Error("a key in a file was made")
	}
}

// TestIdentityMetrics names the state and who holds the key.
func TestIdentityMetrics(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	a := inDir(t, dir, "key: {mode: software}\n")
	a.identityIs(identity.Status{State: identity.StateApproval, Mode: schema.KeySoftware, Fingerprint: "f", Err: context.Canceled})
	a.status.attested = 3
	got := map[string]float64{}
	a.collectIdentity(
		func(name, _ string, v float64, labels ...string) { got[name+" "+strings.Join(labels, " ")] = v },
		func(name, _ string, v uint64, labels ...string) { got[name+" "+strings.Join(labels, " ")] = float64(v) },
	)
	for name, want := range map[string]float64{
		"identity_state state waiting_approval": 1, "identity_state state enrolled": 0, "identity_state state tpm_missing": 0,
		"tpm_info provider software maker  firmware ": 1, "attestations_total result answered": 3, "attestations_total result failed": 0,
	} {
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s is %v (%v), wants %v", name, v, there, want)
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
