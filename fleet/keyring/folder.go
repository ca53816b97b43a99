// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"fulmar/internal/atomicfile"
	"fulmar/schema"
	"fulmar/trust"
)

const (
	rootFile = "root.key" // PKCS #8: the root key of this server
	// A key of one of the server's roles is ROLE.key (PKCS #8) where the first one is a file,
	// ROLE.ref with its reference where it is not (exec:... or tpm:...), and ROLE-N.key or
	// ROLE-N.ref where set N was the first to name it.
	keySuffix = ".key"
	refSuffix = ".ref"
	maxRef    = 4 << 10 // bytes
	// maxSets bounds the sets that are kept: a rotation a week for ten years.
	maxSets = 512
)

// sealed is a key set and the envelope that carries it.
type sealed struct {
	set      *trust.KeySet
	envelope []byte
}

// setFile names the file of a set.
func setFile(version uint64) string { return fmt.Sprintf("keyset-%d.json", version) }

// number is N of a file PREFIX-N.EXT; 0 for other names.
func number(path string) uint64 {
	name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	n, err := strconv.ParseUint(name[strings.LastIndexByte(name, '-')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// numbered lists files PREFIX-N+suffix of a folder by their number.
func numbered(dir, prefix, suffix string) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(dir, prefix+"-*"+suffix))
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(p string) bool { return number(p) == 0 })
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	return names, nil
}

// small reads a file of at most limit bytes.
func small(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is over %d bytes", path, limit)
	}
	return b, err
}

// load reads the sets of a folder, each as the successor of the one before; none where
// none was made.
func load(dir string) (sets []sealed, err error) {
	files, err := numbered(dir, "keyset", ".json")
	if err != nil {
		return nil, err
	}
	if len(files) > maxSets {
		return nil, fmt.Errorf("open keyring %s: %d key sets, at most %d", dir, len(files), maxSets)
	}
	for _, path := range files {
		b, err := small(path, trust.MaxEnvelope)
		if err != nil {
			return nil, fmt.Errorf("open keyring: %w", err)
		}
		set, err := follows(sets, b)
		if err != nil {
			return nil, fmt.Errorf("open keyring: %s: %w; restore the folder from a backup", path, err)
		}
		sets = append(sets, sealed{set, b})
	}
	return sets, nil
}

// follows opens an envelope as the set that follows; the first stands for itself.
func follows(sets []sealed, envelope []byte) (*trust.KeySet, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	if len(sets) == 0 {
		return trust.OpenKeySet(e, sha256.Sum256(e.Unverified()))
	}
	present := sets[len(sets)-1].set
	next, err := present.Next(e)
	if err == nil && next == present {
		err = fmt.Errorf("it is key set %d, which is in force already", present.Version)
	}
	return next, err
}

// keep writes a set beside the others.
func keep(dir string, s *trust.KeySet, envelope []byte) error {
	if len(envelope) > schema.MaxPayload {
		return fmt.Errorf("key set %d has %d bytes, at most %d fit one message to a board; drop keys that are over", s.Version, len(envelope), schema.MaxPayload)
	}
	return atomicfile.WriteFile(filepath.Join(dir, setFile(s.Version)), envelope, 0o600)
}

// make1 makes keys and the first set. What a start that was cut off left is used.
func make1(dir string, tpm TPM) ([]sealed, error) {
	bad := func(err error) ([]sealed, error) { return nil, fmt.Errorf("make keyring: %w", err) }
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return bad(err)
	}
	root, err := keyFile(filepath.Join(dir, rootFile))
	if err != nil {
		return bad(err)
	}
	set := &trust.KeySet{
		Version: 1, Thresholds: map[trust.Role]int{trust.RoleRoot: 1},
		Keys: []trust.Key{{Role: trust.RoleRoot, Public: root.Public()}},
	}
	for _, role := range Roles() {
		key, err := firstKey(dir, tpm, role)
		if err != nil {
			return bad(err)
		}
		defer key.Close() //nolint:errcheck // opened again for its use
		set.Thresholds[role] = 1
		set.Keys = append(set.Keys, trust.Key{Role: role, Public: key.Public()})
	}
	e, err := seal(set, root)
	if err != nil {
		return bad(err)
	}
	b, err := e.Encode()
	if err != nil {
		return bad(err)
	}
	if err := keep(dir, set, b); err != nil {
		return bad(err)
	}
	return load(dir)
}

// firstKey opens the first key of a role, by its reference where one was put there before
// the first start, and makes a file where there is none.
func firstKey(dir string, tpm TPM, role trust.Role) (*trust.Signer, error) {
	ref, err := small(filepath.Join(dir, string(role)+refSuffix), maxRef)
	if errors.Is(err, fs.ErrNotExist) {
		return keyFile(filepath.Join(dir, string(role)+keySuffix))
	}
	if err != nil {
		return nil, err
	}
	return trust.OpenSigner(strings.TrimSpace(string(ref)), tpm)
}

// keyFile opens a key file, and makes it where there is none.
func keyFile(path string) (*trust.Signer, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return trust.NewKeyFile(path, trust.Ed25519)
	}
	return trust.OpenSigner("file:"+path, nil)
}

// seal puts a set into an envelope signed by the keys.
func seal(set *trust.KeySet, keys ...*trust.Signer) (*trust.Envelope, error) {
	payload, err := set.Encode()
	if err != nil {
		return nil, err
	}
	e, err := trust.NewEnvelope(trust.TypeKeySet, payload)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if err := e.Sign(k); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// references lists where keys of a role of this server may be, the newest first.
func references(dir string, role trust.Role) (refs []string, err error) {
	var files []string
	for _, suffix := range []string{refSuffix, keySuffix} {
		more, err := numbered(dir, string(role), suffix)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(number(b), number(a)) })
	files = append(files, filepath.Join(dir, string(role)+refSuffix), filepath.Join(dir, string(role)+keySuffix))
	for _, path := range files {
		if strings.HasSuffix(path, keySuffix) {
			if _, err := os.Lstat(path); err == nil {
				refs = append(refs, "file:"+path)
			}
			continue
		}
		b, err := small(path, maxRef)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		refs = append(refs, strings.TrimSpace(string(b)))
	}
	return refs, nil
}

// holds opens the key of a role of a set that this server holds.
func holds(dir string, tpm TPM, set *trust.KeySet, role trust.Role) (*trust.Signer, error) {
	refs, err := references(dir, role)
	if err != nil {
		return nil, fmt.Errorf("open %s key: %w", role, err)
	}
	if n := set.Thresholds[role]; n > 1 {
		return nil, fmt.Errorf("key set %d wants %d %s keys to sign, and this server signs with one", set.Version, n, role)
	}
	errs := []error{fmt.Errorf("key set %d: %w: %s", set.Version, ErrNotHeld, role)}
	for _, ref := range refs {
		key, err := trust.OpenSigner(ref, tpm)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if slices.ContainsFunc(set.Keys, func(k trust.Key) bool {
			id, err := trust.KeyID(k.Public)
			return err == nil && k.Role == role && k.From == 0 && id == key.ID
		}) {
			return key, nil
		}
		errs = append(errs, key.Close())
	}
	return nil, errors.Join(errs...)
}
