// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package chip

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/storage/vault"
	"fulmar/tpm"
	"fulmar/tpm/tpmtest"
)

func hour() time.Duration { return time.Hour }

func open(t *testing.T, path string) *Chip {
	t.Helper()
	c := New(path, t.TempDir(), hour, slog.New(slog.DiscardHandler))
	t.Cleanup(c.Close)
	return c
}

// A TPM that hangs costs each caller its limit and the program one goroutine; when it
// answers again everything works again. Stop ends every wait.
func TestHang(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	var hang atomic.Bool
	var commands atomic.Int64
	free := make(chan struct{})
	p.Answer = func([]byte) ([]byte, bool) {
		commands.Add(1)
		if hang.Load() {
			<-free
		}
		return nil, true
	}
	c := open(t, p.Path())
	key := func(limit time.Duration) error {
		_, err := Use(t.Context(), c, limit, func(t *tpm.TPM) (int, error) { _, err := t.CreateKey(tpm.Signing); return 0, err })
		return err
	}
	if err := key(Quick); err != nil {
		t.Fatal(err)
	}
	hang.Store(true)
	before := commands.Load()
	for range 5 {
		begin := time.Now()
		if err := key(50 * time.Millisecond); !errors.Is(err, tpm.ErrTimeout) {
			t.Errorf("a TPM that hangs: %v", err)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("waited %v instead of 50 ms", d)
		}
	}
	if n := commands.Load() - before; n != 1 {
		t.Errorf("%d commands were sent to a TPM that hangs, wants 1", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := Use(ctx, c, time.Hour, func(*tpm.TPM) (int, error) { return 0, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
	hang.Store(false)
	close(free)
	if err := key(Quick); err != nil {
		t.Errorf("when it answers again: %v", err)
	}
	c.Stop()
	if err := key(time.Hour); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("after Stop: %v", err)
	}
}

// The spool's keys: sealed and unsealed, lost for ever only where the TPM says never.
func TestHolder(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	key := bytes.Repeat([]byte{7}, vault.KeyBytes)
	c := open(t, chip.Path())
	blob, err := c.Holder().Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Holder().Unseal(blob); err != nil || !bytes.Equal(got, key) {
		t.Errorf("it does not come out again: %v", err)
	}
	if _, err := open(t, tpmtest.Start(t).Path()).Holder().Unseal(blob); !errors.Is(err, vault.ErrKeyLost) {
		t.Errorf("on another TPM: %v", err)
	}
	c.Close()
	chip.Kill()
	if _, err := c.Holder().Unseal(blob); err == nil || errors.Is(err, vault.ErrKeyLost) {
		t.Errorf("with the TPM gone for now: %v", err)
	}
	chip.Run(t)
	if got, err := c.Holder().Unseal(blob); err != nil || !bytes.Equal(got, key) {
		t.Errorf("with the TPM back: %v", err)
	}
	if c.Holder().Kind() != "tpm" {
		t.Error(c.Holder().Kind())
	}
}

// A firmware TPM appears late: the holder gives it a moment, once the machine is up for
// long it does not.
func TestLate(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "late")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	link, chip := filepath.Join(dir, "tpm"), tpmtest.Start(t)
	young := func() time.Duration { return 20 * time.Second }
	c := New("unix:"+link, dir, young, slog.New(slog.DiscardHandler))
	t.Cleanup(c.Close)
	if c.Present() || !c.Awaited() {
		t.Error("a TPM that is not there yet is not waited for")
	}
	time.AfterFunc(300*time.Millisecond, func() { _ = os.Symlink(chip.Sock, link) })
	if _, err := c.Holder().Seal(make([]byte, 32)); err != nil {
		t.Errorf("a TPM that came after 300 ms: %v", err)
	}
	if !c.Present() || c.Awaited() {
		t.Error("a TPM that is there is waited for")
	}
	old := open(t, "unix:"+filepath.Join(dir, "none"))
	begin := time.Now()
	if _, err := old.Holder().Seal(make([]byte, 32)); !errors.Is(err, tpm.ErrNoTPM) || time.Since(begin) > time.Second {
		t.Errorf("no TPM, an hour after the boot: %v in %v", err, time.Since(begin))
	}
}
