// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package floor keeps a board's epoch floor, the lowest epoch of a release that it may
// install: by the counter of its TPM where its key is in one, in a file elsewhere. It
// rises after a commit, and to what the fleet remembers.
package floor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"fulmar/agent/chip"
	"fulmar/internal/atomicfile"
	"fulmar/tpm"
	"fulmar/tpm/floor"
	"fulmar/trust"
)

// ErrLost: there is no floor to go by, so nothing may be installed until a person has looked.
var ErrLost = errors.New("the board's record of the lowest release that it may install is not to be trusted")

// ErrLater: the TPM does not answer now.
var ErrLater = errors.New("the TPM that keeps the lowest release does not answer now")

const (
	sealedFile = "key.sealed" // of the record's MAC, by the TPM
	keyBytes   = 32
	maxSealed  = 4 << 10
)

// Keeper is the floor of one board, a [trust.Floor]. It never waits longer than chip.Slow,
// and only its callers do. Safe for use by many goroutines.
type Keeper struct {
	chip  *chip.Chip
	dir   string
	inTPM func() bool

	using sync.Mutex // one change at a time; held while the TPM works

	mu    sync.Mutex
	value uint64
	known bool
	err   error
}

// New makes the keeper of the floor in a folder; it touches nothing. inTPM tells whether the
// board's key is in its TPM.
func New(c *chip.Chip, dir string, inTPM func() bool) *Keeper {
	return &Keeper{chip: c, dir: dir, inTPM: inTPM}
}

func (k *Keeper) tpmDir() string { return filepath.Join(k.dir, "tpm") }

// begunDir is where a floor in a TPM is made.
func (k *Keeper) begunDir() string { return filepath.Join(k.dir, "tpm.new") }

// Floor implements [trust.Floor]; it reads what keeps it. Errors are [ErrLost] and
// [ErrLater].
func (k *Keeper) Floor() (uint64, error) {
	k.using.Lock()
	defer k.using.Unlock()
	var v uint64
	err := k.use(func(f trust.Floor) (err error) {
		v, err = f.Floor()
		return err
	})
	return v, k.note(v, err)
}

// Raise implements [trust.Floor]; a lower value than the present one changes nothing.
func (k *Keeper) Raise(to uint64) error {
	k.using.Lock()
	defer k.using.Unlock()
	var v uint64
	err := k.use(func(f trust.Floor) (err error) {
		if v, err = f.Floor(); err == nil && to > v {
			err = f.Raise(to)
			v = to
		}
		return err
	})
	return k.note(v, err)
}

// Repair makes the record anew, at the floor that the fleet remembers: a person's decision
// after [ErrLost], since it can lower it.
func (k *Keeper) Repair(to uint64) error {
	k.using.Lock()
	defer k.using.Unlock()
	aside := k.dir + ".lost"
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("repair the floor: %w", err)
	}
	if err := os.Rename(k.dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("repair the floor: %w", err)
	}
	err := error(nil)
	if k.inTPM() {
		_, err = chip.Use(context.Background(), k.chip, chip.Slow, func(t *tpm.TPM) (struct{}, error) {
			return struct{}{}, k.create(t, to)
		})
	} else {
		var f *trust.FileFloor
		if f, err = trust.OpenFileFloor(k.dir); err == nil {
			err = f.Raise(to)
		}
	}
	return k.note(to, err)
}

// Known is the floor as it was last read; false where it was not, or has no value.
func (k *Keeper) Known() (uint64, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.value, k.known, k.err
}

// note remembers for [Keeper.Known], and puts an error into words that a person can act on.
func (k *Keeper) note(v uint64, err error) error {
	switch {
	case err == nil:
	case errors.Is(err, trust.ErrTampered), errors.Is(err, tpm.ErrRollback), errors.Is(err, tpm.ErrDamaged), errors.Is(err, tpm.ErrMissing):
		err = fmt.Errorf("%w: %w; find out who changed %s or put an older disk or TPM state back, then: fulmar ota repair-floor", ErrLost, err, k.dir)
	case errors.Is(err, tpm.ErrTimeout), errors.Is(err, tpm.ErrGone), errors.Is(err, tpm.ErrNoTPM):
		err = fmt.Errorf("%w: %w", ErrLater, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err = err; err == nil {
		k.value, k.known = v, true
	}
	return err
}

// use runs f on the board's floor.
func (k *Keeper) use(f func(trust.Floor) error) error {
	if !k.inTPM() {
		if _, err := os.Stat(k.tpmDir()); err == nil {
			return fmt.Errorf("%w: the board's key was in its TPM before", trust.ErrTampered)
		}
		file, err := trust.OpenFileFloor(k.dir)
		if err != nil {
			return err
		}
		return f(file)
	}
	_, err := chip.Use(context.Background(), k.chip, chip.Slow, func(t *tpm.TPM) (struct{}, error) {
		fl, err := k.open(t)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, f(counted{fl})
	})
	return err
}

// open opens the floor in a TPM, and makes it where this board never had one: no folder, and
// no counter. A making that was cut is finished.
func (k *Keeper) open(t *tpm.TPM) (*floor.Floor, error) {
	f, err := k.opened(t, k.tpmDir())
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f, err := k.opened(t, k.begunDir()); err == nil {
		if _, err := f.Value(); err == nil {
			return k.place(t)
		}
	}
	n, err := t.Counter(floor.Index)
	if err != nil {
		return nil, err
	}
	if _, made := n.Value(); !errors.Is(made, tpm.ErrMissing) {
		return nil, fmt.Errorf("%w: %s is gone, and this board had a floor", tpm.ErrDamaged, k.tpmDir())
	}
	to, err := k.former()
	if err == nil {
		err = k.create(t, to)
	}
	if err != nil {
		return nil, err
	}
	return k.opened(t, k.tpmDir())
}

// former is the floor that a board had before its key came into a TPM.
func (k *Keeper) former() (uint64, error) {
	if _, err := os.Stat(filepath.Join(k.dir, "floor")); err != nil {
		return 0, nil
	}
	f, err := trust.OpenFileFloor(k.dir)
	if err != nil {
		return 0, err
	}
	return f.Floor()
}

// opened opens a folder with a record and its key.
func (k *Keeper) opened(t *tpm.TPM, dir string) (*floor.Floor, error) {
	sealed, err := os.ReadFile(filepath.Join(dir, sealedFile))
	if err != nil {
		if _, gone := os.Stat(dir); gone == nil && errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %s is gone", tpm.ErrDamaged, filepath.Join(dir, sealedFile))
		}
		return nil, fmt.Errorf("open the floor: %w", err)
	}
	if len(sealed) > maxSealed {
		return nil, fmt.Errorf("%w: %s has %d bytes", tpm.ErrDamaged, sealedFile, len(sealed))
	}
	key, err := (&tpm.Holder{TPM: t, Lost: tpm.ErrDamaged}).Unseal(sealed)
	if err != nil {
		return nil, fmt.Errorf("open the floor: %w", err)
	}
	n, err := t.Counter(floor.Index)
	if err != nil {
		return nil, err
	}
	return floor.New(n, dir, key)
}

// create makes a floor in a folder that gets its name when all is there.
func (k *Keeper) create(t *tpm.TPM, to uint64) error {
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	sealed, err := (&tpm.Holder{TPM: t}).Seal(key)
	if err != nil {
		return fmt.Errorf("make the floor: %w", err)
	}
	if err := errors.Join(os.RemoveAll(k.begunDir()), os.MkdirAll(k.begunDir(), 0o700)); err != nil {
		return fmt.Errorf("make the floor: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(k.begunDir(), sealedFile), sealed, 0o600); err != nil {
		return fmt.Errorf("make the floor: %w", err)
	}
	n, err := t.Counter(floor.Index)
	if err != nil {
		return err
	}
	f, err := floor.New(n, k.begunDir(), key)
	if err == nil {
		err = f.Create(to)
	}
	if err == nil {
		_, err = k.place(t)
	}
	return err
}

// place gives the folder of a floor that was made its name.
func (k *Keeper) place(t *tpm.TPM) (*floor.Floor, error) {
	if err := errors.Join(os.Rename(k.begunDir(), k.tpmDir()), atomicfile.SyncDir(k.dir)); err != nil {
		return nil, fmt.Errorf("make the floor: %w", err)
	}
	return k.opened(t, k.tpmDir())
}

// counted is a floor of tpm/floor as a trust.Floor.
type counted struct{ f *floor.Floor }

// Floor implements [trust.Floor].
func (c counted) Floor() (uint64, error) { return c.f.Value() }

// Raise implements [trust.Floor].
func (c counted) Raise(to uint64) error { return c.f.Raise(to) }
