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
	rootFile    = "root.key"    // PKCS #8: the root key of this server
	commandFile = "command.key" // PKCS #8, where the first command key is a file
	commandRef  = "command.ref" // its reference, where it is not: exec:... or tpm:...
	maxRef      = 4 << 10       // bytes
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
	var command *trust.Signer
	ref, err := small(filepath.Join(dir, commandRef), maxRef)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		command, err = keyFile(filepath.Join(dir, commandFile))
	case err == nil:
		command, err = trust.OpenSigner(strings.TrimSpace(string(ref)), tpm)
	}
	if err != nil {
		return bad(err)
	}
	defer command.Close() //nolint:errcheck // opened again for its use
	set := &trust.KeySet{
		Version: 1, Thresholds: map[trust.Role]int{trust.RoleRoot: 1, trust.RoleCommand: 1},
		Keys: []trust.Key{{Role: trust.RoleRoot, Public: root.Public()}, {Role: trust.RoleCommand, Public: command.Public()}},
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

// references lists where command keys of this server may be, the newest first.
func references(dir string) (refs []string, err error) {
	var files []string
	for _, suffix := range []string{".ref", ".key"} {
		more, err := numbered(dir, "command", suffix)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(number(b), number(a)) })
	files = append(files, filepath.Join(dir, commandRef), filepath.Join(dir, commandFile))
	for _, path := range files {
		if strings.HasSuffix(path, ".key") {
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

// holds opens the command key of a set that this server holds.
func holds(dir string, tpm TPM, set *trust.KeySet) (*trust.Signer, error) {
	refs, err := references(dir)
	if err != nil {
		return nil, fmt.Errorf("open command key: %w", err)
	}
	if n := set.Thresholds[trust.RoleCommand]; n > 1 {
		return nil, fmt.Errorf("key set %d wants %d command keys to sign, and this server signs with one", set.Version, n)
	}
	errs := []error{fmt.Errorf("key set %d: %w", set.Version, errNoCommand)}
	for _, ref := range refs {
		key, err := trust.OpenSigner(ref, tpm)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if slices.ContainsFunc(set.Keys, func(k trust.Key) bool {
			id, err := trust.KeyID(k.Public)
			return err == nil && k.Role == trust.RoleCommand && k.From == 0 && id == key.ID
		}) {
			return key, nil
		}
		errs = append(errs, key.Close())
	}
	return nil, errors.Join(errs...)
}
