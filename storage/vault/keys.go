// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrFull says that the keyring holds as many keys as it may, and all are in use.
var ErrFull = fmt.Errorf("keyring holds %d keys and each is still needed", MaxKeys)

// Keys are the data keys of one spool. All methods may be called from any goroutine.
type Keys struct {
	dir      string
	holder   Holder
	recovery *RecoveryPublic

	mu    sync.Mutex
	ring  *ring
	plain map[ID][]byte // the keys that could be unsealed
	state State
}

// State tells what Open found and did; what is set is worth a line in the log.
type State struct {
	Kind       string // who holds the keys: "file" is worth a warning
	Recovery   ID     // to whom new keys are wrapped; 0: to nobody, a dead board's disk cannot be read
	Made       bool   // a key was made: the keyring is new, or its newest key is lost
	Damaged    bool   // neither copy of the keyring could be read: older keys are lost to all
	Lost       []ID   // keys that only the recovery key opens, or nothing
	Dropped    []ID   // keys given up because the keyring was full
	Unverified error  // OpenReadOnly: why the holder could not be asked
}

// Info is what is known of a key without opening it.
type Info struct {
	ID       ID
	Created  time.Time // by the board's clock, which may be wrong
	Kind     string    // of its holder
	Recovery ID        // the recovery key that opens it; 0: none
	Open     bool      // it is open here
}

// Open reads the keyring of a spool's folder, or makes it. Keys of a former holder
// are sealed anew by h, and a new key is taken into use. recovery may be nil: then
// only h can open the keys. After ErrKeyLost of the newest key a new one is made;
// State tells.
func Open(dir string, h Holder, recovery *RecoveryPublic, former ...Holder) (*Keys, error) {
	if kind := h.Kind(); kind == "" || len(kind) > maxKind {
		return nil, fmt.Errorf("keyring: a holder of kind %q, wants 1 to %d bytes", kind, maxKind)
	}
	if err := sweep(dir); err != nil {
		return nil, err
	}
	f, err := loadRing(dir)
	if err != nil {
		return nil, err
	}
	k := &Keys{dir: dir, holder: h, recovery: recovery, ring: f.ring, plain: map[ID][]byte{}}
	k.state.Kind = h.Kind()
	if recovery != nil {
		k.state.Recovery = recovery.ID()
	}
	if f.ring == nil {
		if k.state.Damaged = f.damaged; f.damaged {
			if err := setAside(dir); err != nil {
				return nil, err
			}
		}
		k.ring = &ring{}
	}
	moved, err := k.unsealAll(former)
	if err != nil {
		return nil, err
	}
	rewrapped, err := k.rewrap()
	if err != nil {
		return nil, err
	}
	n := len(k.ring.entries)
	if n == 0 || moved || k.plain[k.ring.entries[n-1].id] == nil {
		k.state.Made = true
		err = k.add(nil)
	} else if rewrapped || f.bad > 0 {
		err = k.save(k.ring.entries)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// unsealAll opens each key that its holder can open; moved: some were sealed anew.
func (k *Keys) unsealAll(former []Holder) (moved bool, err error) {
	for i := range k.ring.entries {
		e := &k.ring.entries[i]
		key, h, err := unsealBy(e, append([]Holder{k.holder}, former...))
		if errors.Is(err, ErrKeyLost) {
			k.state.Lost = append(k.state.Lost, e.id)
			continue
		} else if err != nil {
			return false, err
		}
		k.plain[e.id] = key
		if h.Kind() != k.holder.Kind() {
			if e.blob, err = k.seal(key); err != nil {
				return false, err
			}
			e.kind, moved = k.holder.Kind(), true
		}
	}
	return moved, nil
}

// unsealBy asks the first holder of the right kind.
func unsealBy(e *entry, holders []Holder) ([]byte, Holder, error) {
	for _, h := range holders {
		if h == nil || h.Kind() != e.kind {
			continue
		}
		key, err := h.Unseal(e.blob)
		if err == nil && keyID(key) != e.id {
			err = fmt.Errorf("%w: another key came out", ErrKeyLost)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("unseal key %s (%s): %w", e.id, e.kind, err)
		}
		return key, h, nil
	}
	return nil, nil, fmt.Errorf("%w: key %s is held by %q", ErrKeyLost, e.id, e.kind)
}

// rewrap wraps the open keys to the recovery key where they are not.
func (k *Keys) rewrap() (changed bool, err error) {
	if k.recovery == nil {
		return false, nil
	}
	for i := range k.ring.entries {
		e := &k.ring.entries[i]
		key := k.plain[e.id]
		if key == nil || e.recovery == k.recovery.ID() {
			continue
		}
		if e.wrapped, err = k.recovery.wrap(e.id, key); err != nil {
			return false, err
		}
		e.recovery, changed = k.recovery.ID(), true
	}
	return changed, nil
}

// seal seals a key and makes sure that it comes out again.
func (k *Keys) seal(key []byte) ([]byte, error) {
	blob, err := k.holder.Seal(key)
	if err != nil {
		return nil, fmt.Errorf("seal a spool key (%s): %w", k.holder.Kind(), err)
	}
	if len(blob) == 0 || len(blob) > MaxBlob {
		return nil, fmt.Errorf("seal a spool key (%s): a blob of %d bytes, wants 1 to %d", k.holder.Kind(), len(blob), MaxBlob)
	}
	back, err := k.holder.Unseal(blob)
	if err != nil {
		return nil, fmt.Errorf("a sealed spool key does not come out again (%s): %w", k.holder.Kind(), err)
	}
	if !bytes.Equal(back, key) {
		return nil, fmt.Errorf("a sealed spool key comes out changed (%s)", k.holder.Kind())
	}
	return blob, nil
}

// add makes a key and takes it into use. Where the keyring is full, keys that used
// does not name go first. used nil: what cannot be opened by anybody goes, then the
// oldest, which State tells.
func (k *Keys) add(used func(ID) bool) error {
	key := make([]byte, KeyBytes)
	_, _ = rand.Read(key) // never fails, see crypto/rand
	e := entry{id: keyID(key), created: time.Now().UnixMilli(), kind: k.holder.Kind()}
	var err error
	if e.blob, err = k.seal(key); err != nil {
		return err
	}
	if k.recovery != nil {
		if e.wrapped, err = k.recovery.wrap(e.id, key); err != nil {
			return err
		}
		e.recovery = k.recovery.ID()
	}
	entries, dropped := slices.Clone(k.ring.entries), []ID(nil)
	drop := func(i int) {
		dropped = append(dropped, entries[i].id)
		entries = slices.Delete(entries, i, i+1)
	}
	if len(entries) >= MaxKeys {
		for i := len(entries) - 1; i >= 0; i-- {
			if d := entries[i]; used != nil && !used(d.id) || used == nil && k.plain[d.id] == nil && d.recovery == 0 {
				drop(i)
			}
		}
	}
	if len(entries) >= MaxKeys {
		if used != nil {
			return ErrFull
		}
		drop(0)
	}
	if err := k.save(append(entries, e)); err != nil {
		return err
	}
	for _, id := range dropped {
		delete(k.plain, id)
	}
	k.plain[e.id] = key
	k.state.Dropped = append(k.state.Dropped, dropped...)
	return nil
}

// save writes the keyring under the next generation.
func (k *Keys) save(entries []entry) error {
	r := &ring{gen: k.ring.gen + 1, entries: entries}
	if err := r.store(k.dir); err != nil {
		return err
	}
	k.ring = r
	return nil
}

// Rotate takes a new key into use for segments begun from now on. used tells which
// keys segments on disk still need; others may be dropped when the keyring is full.
// It gives ErrFull, and goes on with the present key, where all are needed.
func (k *Keys) Rotate(used func(ID) bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.holder == nil {
		return errors.New("rotate keys: the keyring was opened only to read it")
	}
	newest := k.ring.entries[len(k.ring.entries)-1].id
	return k.add(func(id ID) bool { return id == newest || used == nil || used(id) })
}

// State tells what Open found and did.
func (k *Keys) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.state
	st.Lost, st.Dropped = slices.Clone(st.Lost), slices.Clone(st.Dropped)
	return st
}

// List tells of the keys, oldest first.
func (k *Keys) List() []Info {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Info
	for _, e := range k.ring.entries {
		out = append(out, Info{ID: e.id, Created: time.UnixMilli(e.created).UTC(), Kind: e.kind, Recovery: e.recovery, Open: k.plain[e.id] != nil})
	}
	return out
}

// Newest is the key for new segments.
func (k *Keys) Newest() ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.ring.entries); n > 0 {
		return k.ring.entries[n-1].id
	}
	return 0
}

// Segment gives the cipher of one segment, AES-256-GCM: its key is derived from the
// data key, the segment's salt and info, which is what the segment says of itself.
// It gives ErrKeyLost where the data key is not open here. k may be nil: no keys.
func (k *Keys) Segment(id ID, salt, info []byte) (cipher.AEAD, error) {
	if k == nil {
		return nil, fmt.Errorf("%w: it is encrypted with key %s and no keys were given", ErrKeyLost, id)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key := k.plain[id]
	if key == nil {
		for _, e := range k.ring.entries {
			if e.id != id {
				continue
			} else if e.recovery == 0 {
				return nil, fmt.Errorf("%w: key %s (%s) does not open, and it was wrapped to no recovery key", ErrKeyLost, id, e.kind)
			}
			return nil, fmt.Errorf("%w: key %s (%s) does not open; recovery key %s would", ErrKeyLost, id, e.kind, e.recovery)
		}
		return nil, fmt.Errorf("%w: key %s is not in the keyring: the file may be another board's", ErrKeyLost, id)
	}
	sub, err := hkdf.Key(sha256.New, key, salt, "fulmar spool segment v1 "+string(info), KeyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive a segment's key: %w", err)
	}
	return newGCM(sub)
}

// keyID names a key by itself, so that a wrong one is noticed when it comes out. It
// tells nothing of the key.
func keyID(key []byte) ID {
	b, err := hkdf.Key(sha256.New, key, nil, "fulmar spool key id v1", 8)
	if err != nil || len(key) != KeyBytes {
		return 0
	}
	return ID(binary.BigEndian.Uint64(b))
}

// OpenReadOnly reads the keyring of a spool that is not this board's: it changes
// nothing, and opens what the holder or the recovery key, either may be nil, can
// open. A folder without a keyring gives Keys without keys.
func OpenReadOnly(dir string, h Holder, recovery *RecoveryKey) (*Keys, error) {
	f, err := loadRing(dir)
	if err != nil {
		return nil, err
	}
	k := &Keys{dir: dir, ring: f.ring, plain: map[ID][]byte{}}
	if k.state.Damaged = f.damaged; f.ring == nil {
		k.ring = &ring{}
	}
	for i := range k.ring.entries {
		e := &k.ring.entries[i]
		key, _, err := unsealBy(e, []Holder{h})
		if err != nil && !errors.Is(err, ErrKeyLost) {
			k.state.Unverified = err
		}
		if key == nil && recovery != nil && len(e.wrapped) > 0 {
			key, err = recovery.unwrap(e.id, e.wrapped)
			if err == nil && keyID(key) != e.id {
				key = nil
			}
		}
		if key == nil {
			k.state.Lost = append(k.state.Lost, e.id)
			continue
		}
		k.plain[e.id] = key
	}
	return k, nil
}
