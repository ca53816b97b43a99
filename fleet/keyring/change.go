// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

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

// Held tells which keys of a set this server holds, by their ids: at most one of each
// role.
func Held(dir string, tpm TPM, set *trust.KeySet) map[trust.Role]string {
	out := map[trust.Role]string{}
	if key, err := ownRoot(dir, set); err == nil && key != nil {
		out[trust.RoleRoot] = key.ID
	}
	for _, role := range Roles() {
		if key, err := holds(dir, tpm, set, role); err == nil {
			out[role] = key.ID
			_ = key.Close() // it was only looked at
		}
	}
	return out
}

// Lacks lists the roles of this server of which a set names no key.
func Lacks(set *trust.KeySet) (out []trust.Role) {
	for _, role := range Roles() {
		if set.Thresholds[role] == 0 {
			out = append(out, role)
		}
	}
	return out
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
	key, err := holds(dir, tpm, next, trust.RoleCommand)
	if err != nil {
		return nil, fmt.Errorf("install key set: %w; fulmar-fleet keys show prints the one that it should name", err)
	}
	return next, errors.Join(key.Close(), keep(dir, next, envelope))
}
