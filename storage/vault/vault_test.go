// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// fakeHolder stands for a TPM: it can be cleared, be busy, and forget.
type fakeHolder struct {
	kind  string
	state byte
	fail  error
	wrong bool
}

func (h *fakeHolder) Kind() string { return h.kind }

func (h *fakeHolder) Seal(key []byte) ([]byte, error) {
	return append([]byte{h.state}, key...), h.fail
}

func (h *fakeHolder) Unseal(blob []byte) ([]byte, error) {
	switch {
	case h.fail != nil:
		return nil, h.fail
	case blob[0] != h.state:
		return nil, fmt.Errorf("%w: integrity", ErrKeyLost)
	case h.wrong:
		return make([]byte, KeyBytes), nil
	}
	return bytes.Clone(blob[1:]), nil
}

func mustOpen(t *testing.T, dir string, h Holder, pub *RecoveryPublic, former ...Holder) *Keys {
	t.Helper()
	k, err := Open(dir, h, pub, former...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func recovery(t *testing.T) *RecoveryKey {
	t.Helper()
	r, err := NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// probe is what a segment of the key looks like: it tells keys apart.
func probe(t *testing.T, k *Keys, id ID) string {
	t.Helper()
	a, err := k.Segment(id, []byte("salt"), []byte("info"))
	if errors.Is(err, ErrKeyLost) {
		return ""
	} else if err != nil {
		t.Fatal(err)
	}
	return string(a.Seal(nil, make([]byte, nonceBytes), []byte("probe"), nil))
}

func TestKeysComeBack(t *testing.T) {
	t.Parallel()
	dir, h, r := t.TempDir(), &fakeHolder{kind: "tpm"}, recovery(t)
	k := mustOpen(t, dir, h, r.Public())
	id := k.Newest()
	want := probe(t, k, id)
	if st := k.State(); !st.Made || st.Kind != "tpm" || st.Recovery != r.Public().ID() || want == "" {
		t.Errorf("%+v", st)
	}
	again := mustOpen(t, dir, h, r.Public())
	if again.State().Made || again.Newest() != id || probe(t, again, id) != want {
		t.Error("another key after opening again")
	}
	for _, c := range [][2]string{{"other", "info"}, {"salt", "other"}} {
		a, err := again.Segment(id, []byte(c[0]), []byte(c[1]))
		if err != nil || string(a.Seal(nil, make([]byte, nonceBytes), []byte("probe"), nil)) == want {
			t.Errorf("%v gives the same key: %v", c, err)
		}
	}
	// The data key is on the disk only sealed and wrapped (the fake's seal is none).
	f, err := loadRing(dir)
	if err != nil || f.bad != 0 {
		t.Fatal(f.bad, err)
	}
	if e := f.ring.entries[0]; bytes.Contains(e.wrapped, k.plain[id]) || len(e.wrapped) != 80 {
		t.Errorf("wrapped: %d bytes", len(e.wrapped))
	}
	ro, err := OpenReadOnly(dir, nil, r)
	if err != nil || probe(t, ro, id) != want {
		t.Errorf("the recovery key does not open it: %v", err)
	}
	if ro, err = OpenReadOnly(dir, nil, recovery(t)); err != nil || probe(t, ro, id) != "" {
		t.Errorf("another recovery key opens it: %v", err)
	}
	if err := ro.Rotate(nil); err == nil {
		t.Error("a keyring that was opened to be read was rotated")
	}
}

func TestLostKeyIsKeptForRecovery(t *testing.T) {
	t.Parallel()
	dir, h, r := t.TempDir(), &fakeHolder{kind: "tpm"}, recovery(t)
	old := mustOpen(t, dir, h, r.Public())
	id, want := old.Newest(), probe(t, old, old.Newest())
	h.state++ // cleared
	k := mustOpen(t, dir, h, r.Public())
	if st := k.State(); !st.Made || !slices.Equal(st.Lost, []ID{id}) || k.Newest() == id {
		t.Errorf("%+v", st)
	}
	if _, err := k.Segment(id, nil, nil); !errors.Is(err, ErrKeyLost) {
		t.Errorf("segment of the lost key: %v", err)
	}
	if probe(t, k, k.Newest()) == "" {
		t.Error("the new key cannot be used")
	}
	if k = mustOpen(t, dir, h, r.Public()); k.State().Made || len(k.List()) != 2 {
		t.Errorf("a key was made at each start: %+v", k.List())
	}
	ro, err := OpenReadOnly(dir, nil, r)
	if err != nil || probe(t, ro, id) != want {
		t.Errorf("the recovery key does not open the lost key: %v", err)
	}
}

func TestHolderThatFailsForNowChangesNothing(t *testing.T) {
	t.Parallel()
	dir, h := t.TempDir(), &fakeHolder{kind: "tpm"}
	id := mustOpen(t, dir, h, nil).Newest()
	h.fail = errors.New("busy")
	if _, err := Open(dir, h, nil); !errors.Is(err, h.fail) {
		t.Errorf("%v", err)
	}
	h.fail = nil
	if k := mustOpen(t, dir, h, nil); k.Newest() != id || len(k.List()) != 1 {
		t.Error("a busy holder cost the key")
	}
	h.wrong = true // what comes out is not what went in
	if _, err := Open(dir, h, nil); err == nil {
		t.Error("a holder that gives wrong keys was taken")
	}
	h.wrong = false
	if k := mustOpen(t, dir, h, nil); k.Newest() != id {
		t.Error("a holder that gave wrong keys cost the key")
	}
}

func TestFormerHolderHandsOver(t *testing.T) {
	t.Parallel()
	dir, file, tpm := t.TempDir(), &fakeHolder{kind: "file"}, &fakeHolder{kind: "tpm", state: 3}
	old := mustOpen(t, dir, file, nil)
	id, want := old.Newest(), probe(t, old, old.Newest())
	k := mustOpen(t, dir, tpm, nil, file)
	if k.Newest() == id || probe(t, k, id) != want || len(k.State().Lost) > 0 {
		t.Errorf("%+v", k.State())
	}
	if k = mustOpen(t, dir, tpm, nil); probe(t, k, id) != want || k.State().Made {
		t.Error("the key was not sealed anew")
	}
}

func TestRecoveryKeyConfiguredLater(t *testing.T) {
	t.Parallel()
	dir, h := t.TempDir(), &fakeHolder{kind: "tpm"}
	k := mustOpen(t, dir, h, nil)
	for _, r := range []*RecoveryKey{recovery(t), recovery(t)} { // the second replaces the first
		mustOpen(t, dir, h, r.Public())
		ro, err := OpenReadOnly(dir, nil, r)
		if err != nil || probe(t, ro, k.Newest()) != probe(t, k, k.Newest()) {
			t.Errorf("a key made before the recovery key: %v", err)
		}
	}
}

func TestRotateKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	dir, h := t.TempDir(), &fakeHolder{kind: "tpm"}
	k := mustOpen(t, dir, h, nil)
	first := k.Newest()
	want := probe(t, k, first)
	all := func(ID) bool { return true }
	for range MaxKeys - 1 {
		if err := k.Rotate(all); err != nil {
			t.Fatal(err)
		}
	}
	newest := k.Newest()
	if err := k.Rotate(all); !errors.Is(err, ErrFull) || k.Newest() != newest {
		t.Errorf("rotated a full keyring: %v", err)
	}
	if err := k.Rotate(func(id ID) bool { return id == first }); err != nil {
		t.Fatal(err)
	}
	if k.Newest() == newest || probe(t, k, first) != want || probe(t, k, newest) == "" {
		t.Error("a key that is needed was dropped")
	}
	if n := len(k.List()); n != 3 {
		t.Errorf("%d keys", n)
	}
	if k = mustOpen(t, dir, h, nil); probe(t, k, first) != want || k.State().Made {
		t.Error("the rotated keyring is not what is on the disk")
	}
}

// A holder that forgets at each start must not throw out keys that can be recovered
// before those that nobody can open.
func TestFullKeyringDropsTheUselessFirst(t *testing.T) {
	t.Parallel()
	dir, h, r := t.TempDir(), &fakeHolder{kind: "tpm"}, recovery(t)
	useful := mustOpen(t, dir, h, r.Public()).Newest()
	for range MaxKeys - 1 {
		h.state++
		mustOpen(t, dir, h, nil)
	}
	h.state++
	k := mustOpen(t, dir, h, nil)
	if ids := k.List(); len(k.State().Dropped) != MaxKeys-1 || ids[0].ID != useful || len(ids) != 2 {
		t.Errorf("dropped %v, left %+v", k.State().Dropped, ids)
	}
	for range MaxKeys - 1 {
		h.state++
		k = mustOpen(t, dir, h, r.Public())
	}
	if d := k.State().Dropped; len(d) != 1 || d[0] == useful { // the one that was open and is now lost without a wrap
		t.Errorf("dropped %v", d)
	}
	h.state++
	if k = mustOpen(t, dir, h, r.Public()); !slices.Equal(k.State().Dropped, []ID{useful}) || len(k.List()) != MaxKeys {
		t.Errorf("a drop of a key with a wrap is not told: %+v", k.State())
	}
}

func TestDamagedCopies(t *testing.T) {
	t.Parallel()
	spoil := func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, hurt := range map[string]func(t *testing.T, dir string){
		"first":          func(t *testing.T, dir string) { spoil(t, filepath.Join(dir, ringName)) },
		"second":         func(t *testing.T, dir string) { spoil(t, filepath.Join(dir, ringBackup)) },
		"first is gone":  func(t *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, ringName)) },
		"second is gone": func(t *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, ringBackup)) },
		"first is cut":   func(t *testing.T, dir string) { _ = os.Truncate(filepath.Join(dir, ringName), 30) },
		"power loss":     func(t *testing.T, dir string) { _ = os.WriteFile(filepath.Join(dir, ".keys.tmp-77"), nil, 0o600) },
	} {
		dir, h := t.TempDir(), &fakeHolder{kind: "tpm"}
		id := mustOpen(t, dir, h, nil).Newest()
		hurt(t, dir)
		if k := mustOpen(t, dir, h, nil); k.Newest() != id || k.State().Made {
			t.Errorf("%s: the key is gone", name)
		}
		f, err := loadRing(dir)
		if err != nil || f.bad != 0 {
			t.Errorf("%s: not mended: %d bad, %v", name, f.bad, err)
		}
		ents, _ := os.ReadDir(dir)
		if len(ents) != 2 {
			t.Errorf("%s: %d files", name, len(ents))
		}
	}
	dir, h := t.TempDir(), &fakeHolder{kind: "tpm"}
	id := mustOpen(t, dir, h, nil).Newest()
	spoil(t, filepath.Join(dir, ringName))
	spoil(t, filepath.Join(dir, ringBackup))
	ro, err := OpenReadOnly(dir, h, nil)
	if err != nil || !ro.State().Damaged {
		t.Errorf("read only: %v", err)
	}
	k := mustOpen(t, dir, h, nil)
	if st := k.State(); !st.Damaged || !st.Made || k.Newest() == id {
		t.Errorf("both copies damaged: %+v", st)
	}
	if _, err := os.Stat(filepath.Join(dir, ringAside)); err != nil {
		t.Error(err)
	}
}

// A copy that cannot be read for now is not taken for one that is not there.
func TestUnreadableKeyringIsNotReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, n := range []string{ringName, ringBackup} { // reading a folder gives an error of the disk
		if err := os.Mkdir(filepath.Join(dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, &fakeHolder{kind: "tpm"}, nil); err == nil {
		t.Error("an unreadable keyring was replaced")
	}
}

func TestNewerKeyring(t *testing.T) {
	t.Parallel()
	dir, h := t.TempDir(), &fakeHolder{kind: "tpm"}
	mustOpen(t, dir, h, nil)
	r := &ring{gen: 99}
	b := r.encode()
	b[8]++
	copy(b[len(b)-4:], crcOf(b[:len(b)-4]))
	if err := os.WriteFile(filepath.Join(dir, ringBackup), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, h, nil); !errors.Is(err, ErrNewer) {
		t.Errorf("%v", err)
	}
}

func TestHolderWithABadBlob(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]Holder{
		"too large": &bigHolder{size: MaxBlob + 1}, "empty": &bigHolder{size: 0}, "of no kind": &fakeHolder{}, "of a long kind": &fakeHolder{kind: "a kind of more than sixteen"},
	} {
		dir := t.TempDir()
		if _, err := Open(dir, h, nil); err == nil {
			t.Errorf("a blob %s was taken", name)
		}
		if ents, _ := os.ReadDir(dir); len(ents) > 0 {
			t.Errorf("a blob %s left %d files", name, len(ents))
		}
	}
}

type bigHolder struct{ size int }

func (h *bigHolder) Kind() string                  { return "tpm" }
func (h *bigHolder) Seal([]byte) ([]byte, error)   { return make([]byte, h.size), nil }
func (h *bigHolder) Unseal([]byte) ([]byte, error) { return nil, errors.New("never") }
