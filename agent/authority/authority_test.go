// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/schema"
	"fulmar/trust"
)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// role is a key with what it may decide.
type role struct {
	role trust.Role
	key  crypto.Signer
}

// set makes the envelope of a key set signed by some keys.
func set(t testing.TB, version uint64, keys []role, signers ...crypto.Signer) []byte {
	t.Helper()
	s := &trust.KeySet{Version: version, Thresholds: map[trust.Role]int{}}
	for _, k := range keys {
		s.Thresholds[k.role] = 1
		s.Keys = append(s.Keys, trust.Key{Role: k.role, Public: k.key.Public()})
	}
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, trust.TypeKeySet, b, signers...)
}

func signed(t testing.TB, typ trust.Type, payload []byte, signers ...crypto.Signer) []byte {
	t.Helper()
	e, err := trust.NewEnvelope(typ, payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range signers {
		if err := e.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func opened(t testing.TB, dir string) *Authority {
	t.Helper()
	a, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// learn wants a set to be taken, or refused with an error of a kind.
func learn(t testing.TB, a *Authority, envelope []byte, version uint64, changed bool, want error) {
	t.Helper()
	got, err := a.Learn(envelope)
	if got != changed || !errors.Is(err, want) || (want == nil) != (err == nil) || a.Version() != version {
		t.Errorf("changed %v, %v, version %d; wants %v, %v, %d", got, err, a.Version(), changed, want, version)
	}
}

// TestLearn: the first set is taken, then only successors by the root in force; what is
// refused changes nothing, also not after a restart.
func TestLearn(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "identity")
	root, root2, thief, command, command2 := newKey(t), newKey(t), newKey(t), newKey(t), newKey(t)
	one := set(t, 1, []role{{trust.RoleRoot, root}, {trust.RoleCommand, command}}, root)
	a := opened(t, dir)
	if _, err := a.Command(signed(t, trust.TypeCommand, []byte("c"), command)); !errors.Is(err, ErrNoKeys) || a.Version() != 0 {
		t.Errorf("without a set: %v", err)
	}
	learn(t, a, []byte("noise"), 0, false, trust.ErrMalformed)
	learn(t, a, set(t, 1, []role{{trust.RoleRoot, root}}, thief), 0, false, trust.ErrSignatures) // not even by itself
	learn(t, a, one, 1, true, nil)
	learn(t, a, one, 1, false, nil)

	other := []role{{trust.RoleRoot, thief}, {trust.RoleCommand, newKey(t)}}
	learn(t, a, set(t, 9, other, thief), 1, false, trust.ErrSignatures)
	learn(t, a, set(t, 1, []role{{trust.RoleRoot, root}, {trust.RoleCommand, command2}}, root), 1, false, trust.ErrRollback)
	learn(t, a, set(t, 2, []role{{trust.RoleRoot, root2}, {trust.RoleCommand, command2}}, root), 1, false, trust.ErrSignatures) // the new root has not agreed
	two := set(t, 2, []role{{trust.RoleRoot, root2}, {trust.RoleCommand, command2}}, root, root2)
	learn(t, a, two, 2, true, nil)
	for range 2 {
		learn(t, a, one, 2, false, trust.ErrSignatures)                                                                            // played back: its root is out
		learn(t, a, set(t, 1, []role{{trust.RoleRoot, root2}, {trust.RoleCommand, command2}}, root2), 2, false, trust.ErrRollback) // and an older one of the present root
		learn(t, a, set(t, 3, []role{{trust.RoleRoot, root}, {trust.RoleCommand, command}}, root), 2, false, trust.ErrSignatures)  // the old root decides nothing
		if _, err := a.Command(signed(t, trust.TypeCommand, []byte("c"), command)); !errors.Is(err, trust.ErrSignatures) {
			t.Errorf("the old command key: %v", err)
		}
		if b, err := a.Command(signed(t, trust.TypeCommand, []byte("c"), command2)); err != nil || string(b) != "c" {
			t.Errorf("the new command key: %q %v", b, err)
		}
		a = opened(t, dir) // and once more after a restart
	}
	if st, err := os.Stat(filepath.Join(dir, File)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// TestVerify: each kind of envelope is taken from keys of its role alone, as what it was
// signed as.
func TestVerify(t *testing.T) {
	t.Parallel()
	root, command, operator, thief := newKey(t), newKey(t), newKey(t), newKey(t)
	a := opened(t, t.TempDir())
	learn(t, a, set(t, 1, []role{{trust.RoleRoot, root}, {trust.RoleCommand, command}, {trust.RoleOperator, operator}}, root), 1, true, nil)
	id, err := trust.KeyID(operator.Public())
	if err != nil {
		t.Fatal(err)
	}
	open := map[trust.Type]func([]byte) ([]byte, error){
		trust.TypeTwin: a.Twin, trust.TypeCommand: a.Command,
		trust.TypeOperator: func(b []byte) ([]byte, error) {
			p, who, err := a.Operator(b)
			if err == nil && who != id {
				t.Errorf("signed by %s, wants %s", who, id)
			}
			return p, err
		},
	}
	keys := []crypto.Signer{root, command, operator, thief}
	right := map[trust.Type]int{trust.TypeTwin: 1, trust.TypeCommand: 1, trust.TypeOperator: 2}
	for want, fn := range open {
		for typ := range right {
			for i, key := range keys {
				b, err := fn(signed(t, typ, []byte("x"), key))
				ok := typ == want && i == right[want]
				if (err == nil) != ok || ok && !bytes.Equal(b, []byte("x")) {
					t.Errorf("%s as %s: %q %v, wants taken: %v", typ, want, b, err, ok)
				}
			}
		}
		good := signed(t, want, []byte("payload"), keys[right[want]])
		forged := strings.Replace(string(good), "cGF5bG9hZA", "cGF6bG9hZA", 1)
		if forged == string(good) {
			t.Fatal("nothing was forged")
		}
		for name, bad := range map[string][]byte{"empty": nil, "forged": []byte(forged), "unsigned": signed(t, want, []byte("x")), "long": make([]byte, trust.MaxEnvelope+1)} {
			if b, err := fn(bad); err == nil || b != nil {
				t.Errorf("%s, %s: %q", want, name, b)
			}
		}
	}
}

// TestDamaged: a set that is not whole takes no command and no other set, says so, and
// is no error of the board.
func TestDamaged(t *testing.T) {
	t.Parallel()
	root, command, thief := newKey(t), newKey(t), newKey(t)
	one := set(t, 1, []role{{trust.RoleRoot, root}, {trust.RoleCommand, command}}, root)
	flipped := bytes.Clone(one)
	flipped[len(flipped)/3] ^= 1
	for name, b := range map[string][]byte{"empty": {}, "cut": one[:len(one)/2], "flipped": flipped, "long": bytes.Repeat([]byte(" "), trust.MaxEnvelope+1)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), b, 0o600); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		a, err := Open(dir, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil || !errors.Is(a.Damaged(), ErrDamaged) || !strings.Contains(said.String(), "damaged") {
			t.Fatalf("%s: %v, %v, said %q", name, err, a.Damaged(), said.String())
		}
		learn(t, a, set(t, 5, []role{{trust.RoleRoot, thief}, {trust.RoleCommand, newKey(t)}}, thief), 0, false, ErrDamaged)
		learn(t, a, one, 0, false, ErrDamaged)
		if _, err := a.Command(signed(t, trust.TypeCommand, []byte("c"), command)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: a command: %v", name, err)
		}
		if _, known := a.Now(); known {
			t.Errorf("%s: it knows the time", name)
		}
		if got, err := os.ReadFile(filepath.Join(dir, File)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: the file was changed", name)
		}
		// A person removes it, and the fleet sends it again.
		if err := os.Remove(filepath.Join(dir, File)); err != nil {
			t.Fatal(err)
		}
		learn(t, opened(t, dir), one, 1, true, nil)
	}
}

// TestPowerCut: cut between writing the next set and its rename, the one before is in
// force, and what was begun is in nobody's way. A set that cannot be kept is not used.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, command, command2 := newKey(t), newKey(t), newKey(t)
	a := opened(t, dir)
	learn(t, a, set(t, 1, []role{{trust.RoleRoot, root}, {trust.RoleCommand, command}}, root), 1, true, nil)
	two := set(t, 2, []role{{trust.RoleRoot, root}, {trust.RoleCommand, command2}}, root)
	for _, n := range []int{0, len(two) / 2, len(two)} {
		if err := os.WriteFile(filepath.Join(dir, "."+File+".tmp-123"), two[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		a = opened(t, dir)
		if b, err := a.Command(signed(t, trust.TypeCommand, []byte("c"), command)); err != nil || string(b) != "c" || a.Version() != 1 {
			t.Fatalf("after %d bytes: %v, version %d", n, err, a.Version())
		}
	}
	// The folder cannot be written: no rename, so no new set.
	if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if changed, err := a.Learn(two); err == nil || changed || a.Version() != 1 {
		t.Errorf("not kept, and in force: %v %v version %d", changed, err, a.Version())
	}
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
	learn(t, a, two, 2, true, nil)
}

// TestNow: the fleet's time goes on with the boot's clock from when it was heard,
// whatever the board's own clock does.
func TestNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		wall := time.UnixMilli(0)
		clock := schema.NewClock(1, time.Hour).WithWall(func() time.Time { return wall })
		a, err := open(t.TempDir(), slog.New(slog.DiscardHandler), clock)
		if err != nil {
			t.Fatal(err)
		}
		want := func(ms uint64, known bool) {
			t.Helper()
			if got, ok := a.Now(); got != ms || ok != known {
				t.Errorf("%d %v, wants %d %v", got, ok, ms, known)
			}
		}
		want(0, false)
		a.Heard(0) // a fleet that does not say
		want(0, false)
		a.Heard(1_800_000_000_000)
		time.Sleep(17 * time.Minute)
		wall = time.UnixMilli(4_000_000_000_000)
		want(1_800_000_000_000+17*60*1000, true)
		a.Heard(1_700_000_000_000) // the fleet's clock was set back
		time.Sleep(time.Second)
		want(1_700_000_001_000, true)
	})
}

// FuzzLearn: whatever comes as a set or an envelope neither breaks nor moves a board.
func FuzzLearn(f *testing.F) {
	root, command := newKey(f), newKey(f)
	one := set(f, 1, []role{{trust.RoleRoot, root}, {trust.RoleCommand, command}}, root)
	f.Add(one)
	f.Add(signed(f, trust.TypeCommand, []byte("c"), command)) // as this key will not be in another process, only its form counts
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &Authority{path: filepath.Join(t.TempDir(), "none", File), log: slog.New(slog.DiscardHandler), clock: schema.NewClock(1, 0)}
		var err error
		if a.set, err = first(one); err != nil {
			t.Fatal(err)
		}
		if changed, _ := a.Learn(b); changed {
			t.Error("a set without its root's key was taken")
		}
		if _, err := a.Twin(b); err == nil {
			t.Error("a twin without the command key was taken")
		}
	})
}
