// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"fulmar/trust"
)

// before makes a folder as servers did before there were other keys than the command's.
func before(t testing.TB, dir string) {
	t.Helper()
	root := must(keyFile(filepath.Join(dir, rootFile)))(t)
	command := must(keyFile(filepath.Join(dir, "command.key")))(t)
	set := &trust.KeySet{
		Version: 1, Thresholds: map[trust.Role]int{trust.RoleRoot: 1, trust.RoleCommand: 1},
		Keys: []trust.Key{{Role: trust.RoleRoot, Public: root.Public()}, {Role: trust.RoleCommand, Public: command.Public()}},
	}
	if err := keep(dir, set, must(must(seal(set, root))(t).Encode())(t)); err != nil {
		t.Fatal(err)
	}
}

// signs tells whether a board takes what the keyring signs for updates.
func (b *board) signs(t testing.TB, k *Keyring) bool {
	t.Helper()
	for typ, sign := range map[trust.Type]func([][]byte) ([]trust.Proof, error){trust.TypeAssignment: k.SignDirectives, trust.TypeFreshness: k.SignFresh} {
		proofs, err := sign([][]byte{[]byte("a"), []byte("b")})
		if err != nil {
			return false
		}
		if b.set.VerifyBatch(proofs[1], []byte("b"), typ, 0) != nil || b.set.VerifyBatch(proofs[1], []byte("a"), typ, 0) == nil {
			return false
		}
		other := trust.TypeAssignment
		if typ == other {
			other = trust.TypeFreshness
		}
		if b.set.VerifyBatch(proofs[0], []byte("a"), other, 0) == nil {
			return false // one role's key signs for the other
		}
	}
	return true
}

// TestServersOfBefore: a server that has a command key alone makes the set with the other
// keys at its next start; boards follow.
func TestServersOfBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before(t, dir)
	b := new(board)
	b.learn(t, must(load(dir))(t)[0].envelope)
	k := opened(t, dir)
	if version, _ := k.KeySet(); version != 2 {
		t.Fatalf("set %d", version)
	}
	b.learn(t, k.After(1)...)
	if !b.signs(t, k) || !b.takes(t, trust.TypeCommand, must(k.SignCommand([]byte("c")))(t)) {
		t.Error("a board does not take what it signs")
	}
	if version, _ := opened(t, dir).KeySet(); version != 2 {
		t.Errorf("each start makes another set: %d", version)
	}
	if _, _, err := Complete(dir, nil); !errors.Is(err, ErrComplete) {
		t.Errorf("complete again: %v", err)
	}
}

// TestTeamsOfBefore: where the root is a team's the server goes on without updates, and
// the set that adds them is a draft for the team.
func TestTeamsOfBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before(t, dir)
	x := newTeam(t, 3)
	present, _, err := Present(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Install(dir, nil, x.draft(present, x.takeOver, x.keys[0], x.keys[1])); err != nil {
		t.Fatal(err)
	}
	k := opened(t, dir)
	if version, _ := k.KeySet(); version != 2 || k.Ready(trust.RoleDirector) == nil || k.Ready(trust.RoleCommand) != nil {
		t.Errorf("set %d, director: %v, command: %v", version, k.Ready(trust.RoleDirector), k.Ready(trust.RoleCommand))
	}
	if _, err := k.SignDirectives([][]byte{[]byte("x")}); !errors.Is(err, ErrNotHeld) {
		t.Errorf("signed without a key: %v", err)
	}
	set, draft, err := Complete(dir, nil)
	if !errors.Is(err, ErrOffline) || len(Lacks(set)) != 0 {
		t.Fatalf("%v", err)
	}
	e := must(trust.ParseEnvelope(draft))(t)
	for _, key := range x.keys[:2] {
		if err := e.Sign(key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Install(dir, nil, must(e.Encode())(t)); err != nil {
		t.Fatal(err)
	}
	b := new(board)
	k = opened(t, dir)
	b.learn(t, k.After(0)...)
	if !b.signs(t, k) {
		t.Error("after the team signed: a board does not take what it signs")
	}
}

// TestRotateRoles: each key is rotated by itself, and one that is held elsewhere is asked
// for by its reference.
func TestRotateRoles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opened(t, dir)
	for _, role := range []trust.Role{trust.RoleDirector, trust.RoleFreshness} {
		was := opened(t, dir)
		if _, _, err := Rotate(dir, nil, role, Rotation{Stolen: true}); err != nil {
			t.Fatal(err)
		}
		k := opened(t, dir)
		b := new(board)
		b.learn(t, k.After(0)...)
		if !b.signs(t, k) || b.signs(t, was) {
			t.Errorf("%s: the key of before is good, or the one of now is not", role)
		}
		for _, other := range Roles() {
			if (k.held[other].ID == was.held[other].ID) == (other == role) {
				t.Errorf("%s rotated: the %s key", role, other)
			}
		}
	}
	if _, _, err := Rotate(dir, nil, trust.RoleRoot, Rotation{}); err == nil {
		t.Error("the root was rotated as if it was a key of this server")
	}

	dir = t.TempDir()
	_, held, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chip := func(string) (crypto.Signer, error) { return held, nil }
	if err := os.WriteFile(filepath.Join(dir, "director.ref"), []byte("tpm:chip\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := must(Open(dir, chip))(t)
	if !slices.ContainsFunc(k.sets[0].set.Keys, func(k trust.Key) bool {
		return k.Role == trust.RoleDirector && held.Public().(ed25519.PublicKey).Equal(k.Public)
	}) {
		t.Error("the set does not name the key that the reference does")
	}
	// Its holder is away: all but updates goes on.
	if k = must(Open(dir, nil))(t); k.Ready(trust.RoleDirector) == nil || k.Ready(trust.RoleFreshness) != nil {
		t.Errorf("%v, %v", k.Ready(trust.RoleDirector), k.Ready(trust.RoleFreshness))
	}
}

// TestReleases: a release key is added, good from an epoch on, and no other key opens
// releases.
func TestReleases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := opened(t, dir)
	key := must(trust.NewKeyFile(filepath.Join(t.TempDir(), "release"), trust.P256))(t)
	signed := func(by ...*trust.Signer) []byte {
		e := must(trust.NewEnvelope(trust.TypeRelease, []byte("{}")))(t)
		for _, s := range by {
			if err := e.Sign(s); err != nil {
				t.Fatal(err)
			}
		}
		return must(e.Encode())(t)
	}
	verified := func(k *Keyring, envelope []byte, epoch uint64) error {
		_, err := k.Set().Verify(must(trust.ParseEnvelope(envelope))(t), trust.TypeRelease, epoch)
		return err
	}
	if err := verified(k, signed(key), 3); !errors.Is(err, trust.ErrSignatures) {
		t.Errorf("a release without a release key: %v", err)
	}
	if _, _, err := AddRelease(dir, nil, key.Public(), 3); err != nil {
		t.Fatal(err)
	}
	k = opened(t, dir)
	if err := verified(k, signed(key), 3); err != nil {
		t.Error(err)
	}
	if err := verified(k, signed(key), 2); !errors.Is(err, trust.ErrSignatures) {
		t.Errorf("good before its epoch: %v", err)
	}
	for _, role := range Roles() {
		if err := verified(k, signed(k.held[role]), 3); !errors.Is(err, trust.ErrSignatures) {
			t.Errorf("a release signed by the %s key: %v", role, err)
		}
	}
	if _, _, err := AddRelease(dir, nil, key.Public(), 0); err == nil {
		t.Error("the same key twice")
	}
}
