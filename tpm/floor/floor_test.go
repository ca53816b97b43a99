// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package floor_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/floor"
	"fulmar/tpm/tpmtest"

	"github.com/google/go-tpm/tpm2"
	gotpm "github.com/google/go-tpm/tpm2/transport"
)

func must[T any](tb testing.TB) func(T, error) T {
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func wants(tb testing.TB, err, class error) {
	tb.Helper()
	if !errors.Is(err, class) {
		tb.Errorf("got %v, want %v", err, class)
	}
}

func open(tb testing.TB, a *tpm.TPM, dir string, key []byte) *floor.Floor {
	tb.Helper()
	return must[*floor.Floor](tb)(floor.New(must[*tpm.Counter](tb)(a.Counter(floor.Index)), dir, key))
}

func floorKey() []byte { return bytes.Repeat([]byte{5}, 32) }

// files are a floor's two, as they are now.
type files map[string][]byte

func keep(tb testing.TB, dir string) files {
	tb.Helper()
	f := files{}
	for _, n := range []string{"floor", "floor.next"} {
		if b, err := os.ReadFile(filepath.Join(dir, n)); err == nil {
			f[n] = b
		}
	}
	return f
}

func (f files) put(tb testing.TB, dir string) {
	tb.Helper()
	for _, n := range []string{"floor", "floor.next"} {
		_ = os.Remove(filepath.Join(dir, n))
		if f[n] != nil {
			if err := os.WriteFile(filepath.Join(dir, n), f[n], 0o600); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// cutting runs f on the floor, and cuts the power at the n-th command from now:
// before the TPM gets it, or after it has done it and before anybody hears of that.
func cutting(tb testing.TB, chip *tpmtest.Chip, dir string, n int, after bool, f func(*floor.Floor) error) error {
	tb.Helper()
	p := tpmtest.Between(tb, chip)
	var left atomic.Int64 // commands until the cut; below 1 there is none
	p.Answer = func([]byte) ([]byte, bool) {
		if left.Add(-1) == 0 && !after {
			chip.Kill()
			return nil, false
		}
		return nil, true
	}
	p.Change = func(_, rsp []byte) []byte {
		if left.Load() == 0 && after {
			chip.Kill()
			return nil
		}
		return rsp
	}
	a := must[*tpm.TPM](tb)(tpm.Open(tpm.Config{Path: p.Path()}))
	l := open(tb, a, dir, floorKey())
	left.Store(int64(n))
	err := f(l)
	_ = a.Close()
	chip.Kill()
	chip.Run(tb)
	return err
}

func value(tb testing.TB, chip *tpmtest.Chip, dir string) (uint64, error) {
	tb.Helper()
	a := must[*tpm.TPM](tb)(tpm.Open(tpm.Config{Path: chip.Path()}))
	defer func() { _ = a.Close() }()
	return open(tb, a, dir, floorKey()).Value()
}

func raise(to uint64) func(*floor.Floor) error {
	return func(f *floor.Floor) error { return f.Raise(to) }
}

func TestFloor(t *testing.T) {
	t.Parallel()
	a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: tpmtest.Start(t).Path()}))
	t.Cleanup(func() { _ = a.Close() })
	dir := t.TempDir()
	f := open(t, a, dir, floorKey())
	_, err := f.Value()
	wants(t, err, tpm.ErrMissing)
	wants(t, f.Raise(1), tpm.ErrMissing)
	if err = f.Create(3); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]uint64{{3, 3}, {7, 7}, {5, 7}, {0, 7}, {1 << 63, 1 << 63}} {
		if err = f.Raise(c[0]); err != nil {
			t.Fatal(err)
		}
		again := open(t, a, dir, floorKey())
		if v := must[uint64](t)(again.Value()); v != c[1] {
			t.Errorf("raised to %d it is %d, want %d", c[0], v, c[1])
		}
	}
	if _, err = floor.New(nil, dir, make([]byte, 15)); err == nil {
		t.Error("a short key was taken")
	}
}

// The power goes at every command of a rise, also of the rise that follows a cut one.
// The floor is never below what a rise that succeeded said, and never lost.
func TestFloorPowerCuts(t *testing.T) {
	t.Parallel()
	chip, dir := tpmtest.Start(t), t.TempDir()
	if err := cutting(t, chip, dir, 0, false, func(f *floor.Floor) error { return f.Create(1) }); err != nil {
		t.Fatal(err)
	}
	said, asked := uint64(1), uint64(1)
	check := func(doing string) {
		t.Helper()
		v, err := value(t, chip, dir)
		if err != nil || v < said || v > asked {
			t.Fatalf("%s: the floor is %d (%v), a rise to %d had succeeded, %d was asked for", doing, v, err, said, asked)
		}
		said = v // it may not go back behind what was read, either
	}
	cuts := 0
	for n := 1; ; n++ {
		whole := false
		for _, after := range []bool{false, true} {
			asked++
			err := cutting(t, chip, dir, n, after, raise(asked))
			if whole = err == nil; whole {
				said = asked
				break
			}
			cuts++
			check(fmt.Sprintf("cut at command %d (after it: %v)", n, after))
		}
		check("a whole rise")
		if whole {
			break
		}
	}
	if cuts < 18 {
		t.Errorf("only %d cuts", cuts)
	}
	for n := range 14 { // a cut, then one in the rise that follows, with no look between
		asked++
		_ = cutting(t, chip, dir, 6, n%2 == 0, raise(asked))
		asked++
		if cutting(t, chip, dir, 1+n, n%2 == 1, raise(asked)) == nil {
			said = asked
		}
		check(fmt.Sprintf("a second cut at command %d", n+1))
	}
}

// The power goes while the next record is written: any part of it may be there.
func TestFloorTornRecord(t *testing.T) {
	t.Parallel()
	chip, dir := tpmtest.Start(t), t.TempDir()
	if err := cutting(t, chip, dir, 0, false, func(f *floor.Floor) error { return f.Create(1) }); err != nil {
		t.Fatal(err)
	}
	if cutting(t, chip, dir, 4, false, raise(2)) == nil {
		t.Fatal("no cut")
	}
	whole := keep(t, dir)
	if len(whole["floor.next"]) == 0 {
		t.Fatal("the cut was not between the next record and the counter")
	}
	a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: chip.Path()}))
	t.Cleanup(func() { _ = a.Close() })
	f := open(t, a, dir, floorKey())
	for n := range len(whole["floor.next"]) + 1 {
		files{"floor": whole["floor"], "floor.next": whole["floor.next"][:n]}.put(t, dir)
		if v := must[uint64](t)(f.Value()); v != 1 {
			t.Errorf("with %d bytes of the next record the floor is %d", n, v)
		}
	}
	if err := f.Raise(3); err != nil {
		t.Fatal(err)
	}
}

// What a thief of the disk may try, and what happens to it by itself, is refused and
// told apart.
func TestFloorRollback(t *testing.T) {
	t.Parallel()
	chip, dir := tpmtest.Start(t), t.TempDir()
	a := must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: chip.Path()}))
	f := open(t, a, dir, floorKey())
	if err := f.Create(1); err != nil {
		t.Fatal(err)
	}
	old := keep(t, dir)
	if err := f.Raise(2); err != nil {
		t.Fatal(err)
	}
	now := keep(t, dir)
	refused := func(class error, what string, f *floor.Floor, fs files) {
		t.Helper()
		fs.put(t, dir)
		_, err := f.Value()
		wants(t, err, class)
		wants(t, f.Raise(1<<40), class)
		now.put(t, dir)
		if t.Failed() {
			t.Log(what)
		}
	}
	refused(tpm.ErrRollback, "the old record", f, old)
	refused(tpm.ErrRollback, "the old record twice", f, files{"floor": old["floor"], "floor.next": old["floor"]})
	refused(tpm.ErrDamaged, "no record", f, files{})
	refused(tpm.ErrDamaged, "an empty record", f, files{"floor": {}})
	for i := range now["floor"] {
		b := bytes.Clone(now["floor"])
		b[i] ^= 1
		refused(tpm.ErrDamaged, "a changed bit", f, files{"floor": b})
	}
	refused(tpm.ErrDamaged, "another board's key", open(t, a, dir, make([]byte, 32)), now)
	if v := must[uint64](t)(f.Value()); v != 2 {
		t.Errorf("%d", v)
	}
	_ = a.Close()

	undefine := func(c gotpm.TPM) error {
		p, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(floor.Index)}.Execute(c)
		if err != nil {
			return err
		}
		_, err = tpm2.NVUndefineSpace{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: floor.Index, Name: p.NVName},
		}.Execute(c)
		return err
	}
	chip.Talk(t, undefine)
	_, err := value(t, chip, dir)
	wants(t, err, tpm.ErrMissing)
	a = must[*tpm.TPM](t)(tpm.Open(tpm.Config{Path: chip.Path()}))
	must[uint64](t)(must[*tpm.Counter](t)(a.Counter(floor.Index)).Define())
	_ = a.Close()
	for _, fs := range []files{now, old} {
		fs.put(t, dir)
		_, err = value(t, chip, dir)
		wants(t, err, tpm.ErrRollback)
	}
	now.put(t, dir)
	// a person decides
	if err = cutting(t, chip, dir, 0, false, func(f *floor.Floor) error { return f.Create(2) }); err != nil {
		t.Fatal(err)
	}
	if v := must[uint64](t)(value(t, chip, dir)); v != 2 {
		t.Errorf("%d", v)
	}
	chip.Clear(t)
	_, err = value(t, chip, dir)
	wants(t, err, tpm.ErrMissing)
}

// A thief cuts the power between a record and its rise, keeps that record, lets a later
// rise happen and puts the kept one back.
func TestFloorAbandonedRecord(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 10; n++ {
		chip, dir := tpmtest.Start(t), t.TempDir()
		if err := cutting(t, chip, dir, 0, false, func(f *floor.Floor) error { return f.Create(1) }); err != nil {
			t.Fatal(err)
		}
		if cutting(t, chip, dir, n, false, raise(2)) == nil {
			t.Fatal("no cut")
		}
		kept := keep(t, dir)
		if err := cutting(t, chip, dir, 0, false, raise(9)); err != nil {
			t.Fatal(err)
		}
		now := keep(t, dir)
		for _, fs := range []files{
			kept,
			{"floor": kept["floor.next"]},
			{"floor": kept["floor"], "floor.next": now["floor.next"]},
			{"floor": now["floor"], "floor.next": kept["floor.next"]},
			{"floor.next": kept["floor.next"]},
		} {
			fs.put(t, dir)
			if v, err := value(t, chip, dir); err == nil && v < 9 {
				t.Fatalf("cut at command %d: a kept record brought the floor back to %d", n, v)
			}
		}
	}
}

// The guarantee that a virtual TPM does not have (Info.Rollback): with its state the
// floor goes back too.
func TestFloorOfAVirtualTPMGoesBack(t *testing.T) {
	t.Parallel()
	chip, dir := tpmtest.Start(t), t.TempDir()
	if err := cutting(t, chip, dir, 0, false, func(f *floor.Floor) error { return f.Create(1) }); err != nil {
		t.Fatal(err)
	}
	chip.Kill()
	state := filepath.Join(chip.Dir, "tpm2-00.permall")
	old, disk := must[[]byte](t)(os.ReadFile(state)), keep(t, dir)
	chip.Run(t)
	if err := cutting(t, chip, dir, 0, false, raise(2)); err != nil {
		t.Fatal(err)
	}
	chip.Kill()
	disk.put(t, dir)
	if err := os.WriteFile(state, old, 0o600); err != nil {
		t.Fatal(err)
	}
	chip.Run(t)
	if v := must[uint64](t)(value(t, chip, dir)); v != 1 {
		t.Errorf("the floor is %d: then Info may say more of a virtual TPM", v)
	}
}
