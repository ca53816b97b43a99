// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fulmar/trust"
)

func opened(t testing.TB, dir string) *Keyring {
	t.Helper()
	k, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// board follows sets as a board does.
type board struct{ set *trust.KeySet }

func (b *board) learn(t testing.TB, envelopes ...[]byte) {
	t.Helper()
	for _, e := range envelopes {
		env := must(trust.ParseEnvelope(e))(t)
		if b.set == nil {
			b.set = must(follows(nil, e))(t)
			continue
		}
		b.set = must(b.set.Next(env))(t)
	}
}

func (b *board) takes(t testing.TB, typ trust.Type, envelope []byte) bool {
	t.Helper()
	_, err := b.set.Verify(must(trust.ParseEnvelope(envelope))(t), typ, 0)
	return err == nil
}

// TestFirstStart: the folder is made once, for its owner alone, and signs what a board
// takes; a start that was cut off is gone on with.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), Dir)
	k := opened(t, dir)
	version, envelope := k.KeySet()
	b := new(board)
	b.learn(t, envelope)
	if version != 1 || !b.takes(t, trust.TypeTwin, must(k.SignTwin([]byte("s")))(t)) || !b.takes(t, trust.TypeCommand, must(k.SignCommand([]byte("c")))(t)) {
		t.Errorf("version %d, or a board does not take what it signs", version)
	}
	if p, err := k.OpenTwin(must(k.SignTwin([]byte("s")))(t)); err != nil || string(p) != "s" {
		t.Errorf("%q %v", p, err)
	}
	if _, err := k.OpenTwin(must(k.SignCommand([]byte("s")))(t)); err == nil {
		t.Error("a command was opened as a twin")
	}
	names := []string{}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		st := must(os.Stat(path))(t)
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("others may look at %s: %v", path, st.Mode())
		}
		names = append(names, d.Name())
		return err
	})
	if want := []string{Dir, "command.key", "director.key", "freshness.key", "keyset-1.json", rootFile}; !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
	again := opened(t, dir)
	if _, e := again.KeySet(); string(e) != string(envelope) || again.held[trust.RoleCommand].ID != k.held[trust.RoleCommand].ID {
		t.Error("another start made other keys")
	}
	// Cut off before the set was written: the keys that are there are used.
	if err := os.Remove(filepath.Join(dir, "keyset-1.json")); err != nil {
		t.Fatal(err)
	}
	if k := opened(t, dir); k.held[trust.RoleCommand].ID != again.held[trust.RoleCommand].ID {
		t.Error("the keys of a start that was cut off are not used")
	}
}

// TestReference: the first command key may be held elsewhere.
func TestReference(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, held, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "command.ref"), []byte("tpm:chip\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	chip := func(rest string) (crypto.Signer, error) {
		if rest != "chip" {
			return nil, errors.New(rest)
		}
		return held, nil
	}
	k, err := Open(dir, chip)
	if err != nil {
		t.Fatal(err)
	}
	set := must(trust.DraftKeySet(must(trust.ParseEnvelope(k.sets[0].envelope))(t)))(t)
	if !slices.ContainsFunc(set.Keys, func(k trust.Key) bool {
		return k.Role == trust.RoleCommand && held.Public().(ed25519.PublicKey).Equal(k.Public)
	}) {
		t.Error("the set does not name the key that the reference does")
	}
	if _, err := os.Stat(filepath.Join(dir, "command.key")); err == nil {
		t.Error("a key file was made as well")
	}
	// The holder is away: no other key takes its place.
	if _, err := Open(dir, nil); !errors.Is(err, ErrNotHeld) || !errors.Is(err, trust.ErrReference) {
		t.Errorf("%v", err)
	}
}

// TestRotate: boards follow from any set; what was signed with the key before is still
// taken after one rotation and not after two, and at once not where it was stolen.
func TestRotate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := opened(t, dir)
	twin, envelope := must(first.SignTwin([]byte("old")))(t), first.sets[0].envelope
	b := new(board)
	b.learn(t, envelope)
	for i, want := range []struct{ stolen, taken bool }{{false, true}, {false, false}, {true, false}} {
		before := opened(t, dir)
		recent := must(before.SignTwin([]byte("recent")))(t)
		set, draft, err := RotateCommand(dir, nil, Rotation{Stolen: want.stolen})
		if err != nil || draft != nil || set.Version != uint64(i+2) {
			t.Fatalf("rotation %d: %v, %v", i, set, err)
		}
		k := opened(t, dir)
		b.learn(t, k.After(b.set.Version)...)
		late := new(board)
		late.learn(t, envelope)
		late.learn(t, k.After(1)...)
		fresh := new(board)
		fresh.learn(t, k.After(0)...)
		for _, x := range []*board{b, late, fresh} {
			if x.set.Version != set.Version || !x.takes(t, trust.TypeCommand, must(k.SignCommand([]byte("new")))(t)) || x.takes(t, trust.TypeTwin, twin) != want.taken || x.takes(t, trust.TypeTwin, recent) == want.stolen {
				t.Errorf("rotation %d: a board at set %d", i, x.set.Version)
			}
		}
		if p, err := k.OpenTwin(twin); err != nil || string(p) != "old" || k.Takes(twin) != want.taken {
			t.Errorf("rotation %d: what it signed before: %q %v, taken %v", i, p, err, k.Takes(twin))
		}
		if k.held[trust.RoleCommand].ID == before.held[trust.RoleCommand].ID {
			t.Errorf("rotation %d: the key is the same", i)
		}
	}
	if after := opened(t, dir).After(4); len(after) != 0 {
		t.Errorf("%d sets for a board that has all", len(after))
	}
}

// TestManyRotations: a board that was off for long follows over several connections, and
// the order of the files is that of their numbers.
func TestManyRotations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := opened(t, dir)
	for range 20 {
		if _, _, err := RotateCommand(dir, nil, Rotation{}); err != nil {
			t.Fatal(err)
		}
	}
	b := new(board)
	b.learn(t, k.sets[0].envelope)
	k = opened(t, dir)
	for n := range 2 {
		after := k.After(b.set.Version)
		if len(after) > maxAfter || len(after) == 0 {
			t.Fatalf("connection %d: %d sets", n, len(after))
		}
		b.learn(t, after...)
	}
	if b.set.Version != 21 || !b.takes(t, trust.TypeCommand, must(k.SignCommand([]byte("c")))(t)) {
		t.Errorf("the board is at set %d", b.set.Version)
	}
}

// team is a root that is held elsewhere.
type team struct {
	t    testing.TB
	dir  string
	keys []*trust.Signer
}

func newTeam(t testing.TB, n int) *team {
	x := &team{t: t, dir: t.TempDir()}
	for i := range n {
		x.keys = append(x.keys, must(trust.NewKeyFile(filepath.Join(x.dir, fmt.Sprint(i)), trust.Ed25519))(t))
	}
	return x
}

// draft changes a set and has some of the team sign it.
func (x *team) draft(set *trust.KeySet, change func(*trust.KeySet), signers ...*trust.Signer) []byte {
	x.t.Helper()
	next := &trust.KeySet{Version: set.Version + 1, Thresholds: map[trust.Role]int{}, Keys: slices.Clone(set.Keys)}
	for r, n := range set.Thresholds {
		next.Thresholds[r] = n
	}
	change(next)
	return must(must(seal(next, signers...))(x.t).Encode())(x.t)
}

// takeOver puts the team in the place of the server's root.
func (x *team) takeOver(s *trust.KeySet) {
	s.Keys = slices.DeleteFunc(s.Keys, func(k trust.Key) bool { return k.Role == trust.RoleRoot })
	for _, k := range x.keys {
		s.Keys = append(s.Keys, trust.Key{Role: trust.RoleRoot, Public: k.Public()})
	}
	s.Thresholds[trust.RoleRoot] = 2
}

// TestOfflineRoot: a team takes the root over; from then on the server names no keys,
// and a rotation is a draft that the team signs.
func TestOfflineRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := new(board)
	b.learn(t, opened(t, dir).sets[0].envelope)
	x := newTeam(t, 3)
	present, _, err := Present(dir)
	if err != nil {
		t.Fatal(err)
	}
	noCommand := func(s *trust.KeySet) {
		x.takeOver(s)
		s.Keys = slices.DeleteFunc(s.Keys, func(k trust.Key) bool { return k.Role == trust.RoleCommand })
		delete(s.Thresholds, trust.RoleCommand)
	}
	for name, bad := range map[string][]byte{
		"one of two":     x.draft(present, x.takeOver, x.keys[0]),
		"no command key": x.draft(present, noCommand, x.keys[0], x.keys[1]),
		"another root":   x.draft(present, func(s *trust.KeySet) { x.takeOver(s); s.Version = 1 }, x.keys[0], x.keys[1]),
		"noise":          []byte("noise"),
	} {
		if _, err := Install(dir, nil, bad); err == nil {
			t.Errorf("%s: installed", name)
		}
	}
	if s, _, err := Present(dir); err != nil || s.Version != 1 {
		t.Fatalf("a refused set is in force: %v", err)
	}
	if _, err := Install(dir, nil, x.draft(present, x.takeOver, x.keys[0], x.keys[2])); err != nil {
		t.Fatal(err) // the server's own root signs by itself
	}
	k := opened(t, dir)
	b.learn(t, k.After(1)...)
	if held := Held(dir, nil, k.sets[1].set); len(held) != 3 || held[trust.RoleRoot] != "" || held[trust.RoleCommand] != k.held[trust.RoleCommand].ID {
		t.Errorf("holds %q", held)
	}
	// Whoever has the server cannot name keys now.
	root := must(trust.OpenSigner("file:"+filepath.Join(dir, rootFile), nil))(t)
	thief := x.draft(k.sets[1].set, func(s *trust.KeySet) {}, root)
	if _, err := Install(dir, nil, thief); !errors.Is(err, trust.ErrSignatures) {
		t.Errorf("a set signed with the server's old root: %v", err)
	}
	before := k.held[trust.RoleCommand].ID
	set, draft, err := RotateCommand(dir, nil, Rotation{})
	if !errors.Is(err, ErrOffline) || set.Version != 3 {
		t.Fatalf("%v %v", set, err)
	}
	if k := opened(t, dir); k.held[trust.RoleCommand].ID != before {
		t.Error("a draft is in force")
	}
	again, draft2, err := RotateCommand(dir, nil, Rotation{})
	if !errors.Is(err, ErrOffline) || again.Version != 3 || string(draft2) != string(draft) {
		t.Errorf("asked again, another draft: %v", err)
	}
	e := must(trust.ParseEnvelope(draft))(t)
	for _, key := range x.keys[1:] {
		if err := e.Sign(key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Install(dir, nil, must(e.Encode())(t)); err != nil {
		t.Fatal(err)
	}
	k = opened(t, dir)
	b.learn(t, k.After(2)...)
	if b.set.Version != 3 || k.held[trust.RoleCommand].ID == before || !b.takes(t, trust.TypeCommand, must(k.SignCommand([]byte("c")))(t)) {
		t.Errorf("after the team signed: set %d", b.set.Version)
	}
}

// TestDamaged: a folder that does not hold together serves nobody, and no other keys are
// made in their place.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(dir string) error{
		"set":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "keyset-2.json"), []byte("{}"), 0o600) },
		"a hole":  func(dir string) error { return os.Remove(filepath.Join(dir, "keyset-1.json")) },
		"command": func(dir string) error { return os.Remove(filepath.Join(dir, "command-3.key")) },
		"others":  func(dir string) error { return os.Chmod(filepath.Join(dir, "command-3.key"), 0o644) },
	} {
		dir := t.TempDir()
		opened(t, dir)
		for range 2 {
			if _, _, err := RotateCommand(dir, nil, Rotation{Stolen: true}); err != nil {
				t.Fatal(err)
			}
		}
		if err := harm(dir); err != nil {
			t.Fatal(err)
		}
		k, err := Open(dir, nil)
		if name == "a hole" { // sets that were removed are only of use to boards that have them
			if err != nil || len(k.After(1)) != 2 {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "key") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzInstall(f *testing.F) {
	dir := f.TempDir()
	k := opened(f, dir)
	f.Add(k.sets[0].envelope)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Install(dir, nil, b); err == nil {
			// The server's root signs what is installed by its own hand, so a set that makes
			// sense and names its keys is taken; the folder must stay whole.
			opened(t, dir)
		}
	})
}

// BenchmarkSign is what a command costs the server before it is sent.
func BenchmarkSign(b *testing.B) {
	k := opened(b, b.TempDir())
	payload := make([]byte, 256)
	for b.Loop() {
		if _, err := k.SignCommand(payload); err != nil {
			b.Fatal(err)
		}
	}
}
