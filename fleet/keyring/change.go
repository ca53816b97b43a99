// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"fulmar/internal/atomicfile"
	"fulmar/trust"
)

// ErrOffline: the server's own root key is not enough for the next set, so the holders
// of the root have to sign it.
var ErrOffline = errors.New("the root of the key set in force is not this server's alone")

// Present gives the key set in force of a folder and its envelope, without opening any
// key.
func Present(dir string) (*trust.KeySet, []byte, error) {
	sets, err := load(dir)
	if err != nil {
		return nil, nil, err
	}
	if len(sets) == 0 {
		return nil, nil, fmt.Errorf("there is no key set in %s; the server makes one at its first start", dir)
	}
	last := sets[len(sets)-1]
	return last.set, last.envelope, nil
}

// Held tells which root and command key of a set this server holds, by their ids; ""
// for none.
func Held(dir string, tpm TPM, set *trust.KeySet) (root, command string) {
	if key, err := ownRoot(dir, set); err == nil && key != nil {
		root = key.ID
	}
	if key, err := holds(dir, tpm, set); err == nil {
		command = key.ID
		_ = key.Close() // it was only looked at
	}
	return root, command
}

// ownRoot opens the server's root key; nil where it has none, or it is none of the
// set's.
func ownRoot(dir string, set *trust.KeySet) (*trust.Signer, error) {
	key, err := trust.OpenSigner("file:"+filepath.Join(dir, rootFile), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, k := range set.Keys {
		if id, err := trust.KeyID(k.Public); err == nil && k.Role == trust.RoleRoot && id == key.ID {
			return key, nil
		}
	}
	return nil, nil
}

// Install puts the envelope of a key set in force from the next start on: a successor of
// the present one, signed by enough root keys of both, that names a command key which
// this server holds. Where the server's own root key is one of those that have to sign
// and has not, it does.
func Install(dir string, tpm TPM, envelope []byte) (*trust.KeySet, error) {
	present, _, err := Present(dir)
	if err != nil {
		return nil, err
	}
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, fmt.Errorf("install key set: %w", err)
	}
	draft, err := trust.DraftKeySet(e)
	if err != nil {
		return nil, fmt.Errorf("install key set: %w", err)
	}
	root, err := ownRoot(dir, present)
	if err != nil {
		return nil, fmt.Errorf("install key set: root key of this server: %w", err)
	}
	if root != nil && !e.SignedBy(root.Public()) {
		if err := e.Sign(root); err != nil {
			return nil, fmt.Errorf("install key set: %w", err)
		}
		if envelope, err = e.Encode(); err != nil {
			return nil, fmt.Errorf("install key set: %w", err)
		}
	}
	next, err := present.Next(e)
	switch {
	case err != nil:
		return nil, fmt.Errorf("install key set %d: %w", draft.Version, err)
	case next == present:
		return nil, fmt.Errorf("install key set %d: it is in force already", draft.Version)
	}
	key, err := holds(dir, tpm, next)
	if err != nil {
		return nil, fmt.Errorf("install key set: %w; fulmar-fleet keys show prints the one that it should name", err)
	}
	return next, errors.Join(key.Close(), keep(dir, next, envelope))
}

// Rotation says how the command key is to be rotated.
type Rotation struct {
	// Reference names the next key (exec:..., tpm:..., file:...); "" makes a key file.
	Reference string
	// Stolen drops the present key at once. Otherwise it stays good until the rotation
	// after this one, so that boards take what was signed with it before.
	Stolen bool
}

// RotateCommand makes the next command key and the next set, which names it. Where this
// server's root key suffices, the set is in force from the next start on and draft is
// nil. Otherwise it is [ErrOffline], and draft is the set for the holders of the root to
// sign and [Install]; the key is kept until then.
func RotateCommand(dir string, tpm TPM, r Rotation) (next *trust.KeySet, draft []byte, err error) {
	bad := func(err error) (*trust.KeySet, []byte, error) {
		return nil, nil, fmt.Errorf("rotate command key: %w", err)
	}
	present, _, err := Present(dir)
	if err != nil {
		return bad(err)
	}
	version := present.Version + 1
	key, err := nextKey(dir, tpm, version, r.Reference)
	if err != nil {
		return bad(err)
	}
	defer key.Close() //nolint:errcheck // opened again for its use
	next = &trust.KeySet{Version: version, Thresholds: present.Thresholds, Keys: slices.Clone(present.Keys)}
	old, err := own(dir, tpm)
	if err != nil {
		return bad(err)
	}
	if inUse, err := holds(dir, tpm, present); err == nil && !r.Stolen {
		old = slices.DeleteFunc(old, func(id string) bool { return id == inUse.ID })
		_ = inUse.Close() // it was only looked at
	}
	next.Keys = slices.DeleteFunc(next.Keys, func(k trust.Key) bool {
		id, err := trust.KeyID(k.Public)
		return k.Role == trust.RoleCommand && (err != nil || slices.Contains(old, id))
	})
	next.Keys = append(next.Keys, trust.Key{Role: trust.RoleCommand, Public: key.Public()})
	e, err := seal(next)
	if err != nil {
		return bad(err)
	}
	root, err := ownRoot(dir, present)
	if err != nil {
		return bad(err)
	}
	if root != nil {
		if err := e.Sign(root); err != nil {
			return bad(err)
		}
	}
	envelope, err := e.Encode()
	if err != nil {
		return bad(err)
	}
	if root == nil || present.Thresholds[trust.RoleRoot] > 1 {
		return next, envelope, ErrOffline
	}
	next, err = Install(dir, tpm, envelope)
	return next, nil, err
}

// own lists the ids of the command keys that this server holds or held, as far as they
// can be opened: others in a set are somebody else's.
func own(dir string, tpm TPM) (ids []string, err error) {
	refs, err := references(dir)
	for _, ref := range refs {
		key, err := trust.OpenSigner(ref, tpm)
		if err != nil {
			continue
		}
		ids = append(ids, key.ID)
		_ = key.Close() // it was only looked at
	}
	return ids, err
}

// nextKey opens or makes the command key of a set to come. One that was made for the
// same set before is used again: its set was not installed.
func nextKey(dir string, tpm TPM, version uint64, ref string) (*trust.Signer, error) {
	base := filepath.Join(dir, fmt.Sprintf("command-%d", version))
	if ref == "" {
		return keyFile(base + ".key")
	}
	key, err := trust.OpenSigner(ref, tpm)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.WriteFile(base+".ref", []byte(ref+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, key.Close())
	}
	// A file made for this set before would be taken for the same rank.
	if err := os.Remove(base + ".key"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, key.Close())
	}
	return key, nil
}
