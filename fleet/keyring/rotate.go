// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"fulmar/internal/atomicfile"
	"fulmar/trust"
)

// ErrComplete: the set in force lacks nothing.
var ErrComplete = errors.New("the key set in force names a key for each role of this server")

// Rotation says how a key is to be rotated.
type Rotation struct {
	// Reference names the next key (exec:..., tpm:..., file:...); "" makes a key file.
	Reference string
	// Stolen drops the present key at once. Otherwise it stays good until the rotation
	// after this one, so that boards take what was signed with it before.
	Stolen bool
}

// RotateCommand is [Rotate] for the command key.
func RotateCommand(dir string, tpm TPM, r Rotation) (next *trust.KeySet, draft []byte, err error) {
	return Rotate(dir, tpm, trust.RoleCommand, r)
}

// Rotate makes the next key of one of the server's roles and the next set, which names
// it. Where this server's root key suffices, the set is in force from the next start on
// and draft is nil. Otherwise it is [ErrOffline], and draft is the set for the holders of
// the root to sign and [Install]; the key is kept until then.
func Rotate(dir string, tpm TPM, role trust.Role, r Rotation) (next *trust.KeySet, draft []byte, err error) {
	bad := func(err error) (*trust.KeySet, []byte, error) {
		return nil, nil, fmt.Errorf("rotate %s key: %w", role, err)
	}
	if !slices.Contains(Roles(), role) {
		return bad(errors.New("it is no key of this server"))
	}
	present, _, err := Present(dir)
	if err != nil {
		return bad(err)
	}
	next = after(present)
	key, err := nextKey(dir, tpm, role, next.Version, r.Reference)
	if err != nil {
		return bad(err)
	}
	defer key.Close() //nolint:errcheck // opened again for its use
	old, err := own(dir, tpm, role)
	if err != nil {
		return bad(err)
	}
	if inUse, err := holds(dir, tpm, present, role); err == nil && !r.Stolen {
		old = slices.DeleteFunc(old, func(id string) bool { return id == inUse.ID })
		_ = inUse.Close() // it was only looked at
	}
	next.Keys = slices.DeleteFunc(next.Keys, func(k trust.Key) bool {
		id, err := trust.KeyID(k.Public)
		return k.Role == role && (err != nil || slices.Contains(old, id))
	})
	add(next, role, trust.Key{Role: role, Public: key.Public()})
	if next, draft, err = follow(dir, tpm, present, next); err != nil && !errors.Is(err, ErrOffline) {
		return bad(err)
	}
	return next, draft, err
}

// Complete makes keys for the roles of this server that the set in force names none for,
// and the next set: as [Rotate]. [ErrComplete] where nothing is lacking.
func Complete(dir string, tpm TPM) (next *trust.KeySet, draft []byte, err error) {
	bad := func(err error) (*trust.KeySet, []byte, error) {
		return nil, nil, fmt.Errorf("complete the key set: %w", err)
	}
	present, _, err := Present(dir)
	if err != nil {
		return bad(err)
	}
	roles := Lacks(present)
	if len(roles) == 0 {
		return bad(ErrComplete)
	}
	next = after(present)
	for _, role := range roles {
		key, err := firstKey(dir, tpm, role)
		if err != nil {
			return bad(err)
		}
		add(next, role, trust.Key{Role: role, Public: key.Public()})
		if err := key.Close(); err != nil {
			return bad(err)
		}
	}
	if next, draft, err = follow(dir, tpm, present, next); err != nil && !errors.Is(err, ErrOffline) {
		return bad(err)
	}
	return next, draft, err
}

// AddRelease makes the next set with one more release key, good from the epoch on: as
// [Rotate].
func AddRelease(dir string, tpm TPM, public crypto.PublicKey, from uint64) (next *trust.KeySet, draft []byte, err error) {
	bad := func(err error) (*trust.KeySet, []byte, error) {
		return nil, nil, fmt.Errorf("add release key: %w", err)
	}
	present, _, err := Present(dir)
	if err != nil {
		return bad(err)
	}
	next = after(present)
	add(next, trust.RoleRelease, trust.Key{Role: trust.RoleRelease, Public: public, From: from})
	if next, draft, err = follow(dir, tpm, present, next); err != nil && !errors.Is(err, ErrOffline) {
		return bad(err)
	}
	return next, draft, err
}

// after is a copy of a set under the next version.
func after(s *trust.KeySet) *trust.KeySet {
	return &trust.KeySet{Version: s.Version + 1, Thresholds: maps.Clone(s.Thresholds), Keys: slices.Clone(s.Keys)}
}

// add adds a key; one of a role that has none signs alone.
func add(s *trust.KeySet, role trust.Role, k trust.Key) {
	s.Keys = append(s.Keys, k)
	if s.Thresholds[role] == 0 {
		s.Thresholds[role] = 1
	}
}

// follow puts a set in force if the server's own root suffices, else gives it as a draft
// beside [ErrOffline].
func follow(dir string, tpm TPM, present, next *trust.KeySet) (*trust.KeySet, []byte, error) {
	e, err := seal(next)
	if err != nil {
		return nil, nil, err
	}
	root, err := ownRoot(dir, present)
	if err != nil {
		return nil, nil, err
	}
	if root != nil {
		if err := e.Sign(root); err != nil {
			return nil, nil, err
		}
	}
	envelope, err := e.Encode()
	if err != nil {
		return nil, nil, err
	}
	if root == nil || present.Thresholds[trust.RoleRoot] > 1 {
		return next, envelope, ErrOffline
	}
	next, err = Install(dir, tpm, envelope)
	return next, nil, err
}

// own lists the ids of the keys of a role that this server holds or held, as far as they
// can be opened: others in a set are somebody else's.
func own(dir string, tpm TPM, role trust.Role) (ids []string, err error) {
	refs, err := references(dir, role)
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

// nextKey opens or makes the key of a set to come. One that was made for the same set
// before is used again: its set was not installed.
func nextKey(dir string, tpm TPM, role trust.Role, version uint64, ref string) (*trust.Signer, error) {
	base := filepath.Join(dir, fmt.Sprintf("%s-%d", role, version))
	if ref == "" {
		return keyFile(base + keySuffix)
	}
	key, err := trust.OpenSigner(ref, tpm)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.WriteFile(base+refSuffix, []byte(ref+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, key.Close())
	}
	// A file made for this set before would be taken for the same rank.
	if err := os.Remove(base + keySuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, key.Close())
	}
	return key, nil
}
