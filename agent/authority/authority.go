// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/trust"
)

// File is the envelope of the key set in force, in the folder; it holds no secret.
const File = "keyset.json"

var (
	// ErrNoKeys: the board has no key set yet; its fleet sends one.
	ErrNoKeys = errors.New("this board has no key set of its fleet, so it takes no commands and no settings")
	// ErrDamaged: the set on the disk cannot be read or does not hold together.
	ErrDamaged = errors.New("the key set on this board is damaged, so it takes no commands and no settings; " +
		"look at the disk, remove the file, and the fleet sends another")
)

// Authority is the key set in force and the fleet's time. Its methods may be called
// from any goroutine.
type Authority struct {
	path  string
	log   *slog.Logger
	clock schema.Clock

	learning sync.Mutex // over the disk, which may be slow; mu is never held there

	mu      sync.Mutex
	set     *trust.KeySet // nil where there is none
	damaged error         // why the one on the disk is not taken
	ahead   int64         // the fleet's clock less CLOCK_BOOTTIME, ms
	told    bool          // the fleet's clock was heard of in this run
}

// Open reads the set in a folder, which is made when there is one to keep. None is no
// error, and a damaged one neither: the board has more to do than commands; see
// [Authority.Damaged].
func Open(dir string, log *slog.Logger) (*Authority, error) {
	return open(dir, log, schema.BootClock(0))
}

func open(dir string, log *slog.Logger, clock schema.Clock) (*Authority, error) {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("open key set: %s is not a folder", dir)
	}
	a := &Authority{path: filepath.Join(dir, File), log: log, clock: clock}
	b, err := read(a.path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		a.set, err = first(b)
	}
	if err != nil {
		a.damaged = fmt.Errorf("%w: %s: %w", ErrDamaged, a.path, err)
		log.Error("key set not read", "err", a.damaged)
	}
	return a, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return io.ReadAll(io.LimitReader(f, trust.MaxEnvelope+1))
}

// first opens a set by nothing but itself: it is signed by its own root keys.
func first(envelope []byte) (*trust.KeySet, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	return trust.OpenKeySet(e, sha256.Sum256(e.Unverified()))
}

// Damaged tells why the board takes no commands although it had a key set; nil where it
// does, or never had one.
func (a *Authority) Damaged() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.damaged
}

// Version is that of the set in force; 0 where there is none.
func (a *Authority) Version() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.set == nil {
		return 0
	}
	return a.set.Version
}

// Learn takes the envelope of a key set. The first is taken as it is, so it must have
// come from the fleet over a connection that proves it; a later one only as the
// successor of the one in force, see [trust.KeySet.Next]. Changed tells whether another
// set is in force, and on the disk, now. What is refused changes nothing:
// [trust.ErrSignatures] for a set that the present root did not sign, as one of another
// fleet, [trust.ErrRollback] for an older one.
func (a *Authority) Learn(envelope []byte) (changed bool, err error) {
	a.learning.Lock()
	defer a.learning.Unlock()
	a.mu.Lock()
	set, damaged := a.set, a.damaged
	a.mu.Unlock()
	if damaged != nil {
		return false, damaged
	}
	next, err := successor(set, envelope)
	if err != nil {
		return false, fmt.Errorf("key set of the fleet refused: %w", err)
	}
	if next == set {
		return false, nil
	}
	// On the disk first: a board that forgets a set would take an older one again.
	if err := os.MkdirAll(filepath.Dir(a.path), 0o700); err != nil {
		return false, fmt.Errorf("keep key set %d: %w", next.Version, err)
	}
	if err := atomicfile.WriteFile(a.path, envelope, 0o600); err != nil {
		return false, fmt.Errorf("keep key set %d: %w", next.Version, err)
	}
	a.mu.Lock()
	a.set = next
	a.mu.Unlock()
	a.log.Info("key set of the fleet in force", "version", next.Version, "keys", len(next.Keys))
	return true, nil
}

func successor(set *trust.KeySet, envelope []byte) (*trust.KeySet, error) {
	if set == nil {
		return first(envelope)
	}
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	return set.Next(e)
}

// Set is the key set in force, for who proves what is more than one envelope: releases,
// directives, answers on what is newest. An error says why there is none.
func (a *Authority) Set() (*trust.KeySet, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.damaged != nil:
		return nil, a.damaged
	case a.set == nil:
		return nil, ErrNoKeys
	}
	return a.set, nil
}

// Twin gives the payload of what the fleet signed of a twin.
func (a *Authority) Twin(envelope []byte) ([]byte, error) {
	payload, _, err := a.verify(envelope, trust.TypeTwin)
	return payload, err
}

// Command gives the payload of a command that the fleet signed.
func (a *Authority) Command(envelope []byte) ([]byte, error) {
	payload, _, err := a.verify(envelope, trust.TypeCommand)
	return payload, err
}

// Operator gives the payload of a command that a person's key signed, and the id of
// that key (see [trust.KeyID]); of the first where the set wants several.
func (a *Authority) Operator(envelope []byte) (payload []byte, keyID string, err error) {
	payload, ids, err := a.verify(envelope, trust.TypeOperator)
	if err != nil {
		return nil, "", err
	}
	return payload, ids[0], nil
}

// verify opens an envelope by the set in force. Keys of commands have no epochs: the
// next set ends them.
func (a *Authority) verify(envelope []byte, want trust.Type) ([]byte, []string, error) {
	a.mu.Lock()
	set, damaged := a.set, a.damaged
	a.mu.Unlock()
	switch {
	case damaged != nil:
		return nil, nil, damaged
	case set == nil:
		return nil, nil, ErrNoKeys
	}
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, nil, err
	}
	return set.Signers(e, want, 0)
}

// Heard notes the fleet's clock at this moment, in ms since 1970, as hello/ack tells it.
func (a *Authority) Heard(wallMs int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ahead, a.told = wallMs-a.clock.Now().Mono/int64(time.Millisecond), wallMs > 0
}

// Now is the fleet's time in ms since 1970, by CLOCK_BOOTTIME since it was heard of:
// the board's own clock may be wrong, and is not asked. False where the fleet was not
// heard of since this program started.
func (a *Authority) Now() (ms uint64, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.told {
		return 0, false
	}
	return uint64(max(a.ahead+a.clock.Now().Mono/int64(time.Millisecond), 0)), true
}
