// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"slices"
)

// Role is what a key may decide.
type Role string

// The roles. A key has one: who steals it gets no other.
const (
	RoleRoot        Role = "root"         // names all other keys; offline
	RoleRelease     Role = "release"      // what may be installed
	RoleDirector    Role = "director"     // which board installs it
	RoleFreshness   Role = "freshness"    // answers a board's nonce with the newest counters
	RoleTime        Role = "time"         // answers a board's nonce with the time
	RolePCRApproval Role = "pcr-approval" // boot measurements with which a board unseals
	RoleCommand     Role = "command"      // commands and settings of the fleet that change a board
	RoleOperator    Role = "operator"     // commands of a person who stands at the board
	RoleAudit       Role = "audit"        // heads of the audit log
)

// Roles lists them all.
func Roles() []Role {
	return []Role{RoleRoot, RoleRelease, RoleDirector, RoleFreshness, RoleTime, RolePCRApproval, RoleCommand, RoleOperator, RoleAudit}
}

// Role gives the only role whose keys sign payloads of a type; "" if it is unknown.
func (t Type) Role() Role {
	switch t {
	case TypeKeySet:
		return RoleRoot
	case TypeRelease:
		return RoleRelease
	case TypeAssignment:
		return RoleDirector
	case TypeFreshness:
		return RoleFreshness
	case TypeTime:
		return RoleTime
	case TypePCRs:
		return RolePCRApproval
	case TypeCommand, TypeTwin:
		return RoleCommand
	case TypeOperator:
		return RoleOperator
	case TypeAuditHead:
		return RoleAudit
	}
	return ""
}

// Bounds of a key set.
const (
	// MaxKeySet is the longest encoded key set, in bytes: it fits an envelope.
	MaxKeySet = 32 << 10
	// MaxKeys is how many keys a set may have: eight for each role.
	MaxKeys = 64
	// maxRoot keeps old and new root signatures of a rotation within one envelope.
	maxRoot = MaxSignatures / 2
)

// Key is a public key and what it may decide.
type Key struct {
	Role   Role
	Public crypto.PublicKey
	// From is the first epoch at which the key is good, Until the first at which it is
	// good no longer; 0 is no end. Root keys have neither: the next set ends them.
	From, Until uint64
}

func (k *Key) good(epoch uint64) bool {
	return epoch >= k.From && (k.Until == 0 || epoch < k.Until)
}

// KeySet is the keys of a fleet. It goes from hand to hand as an [Envelope] of
// [TypeKeySet] signed by its root keys.
type KeySet struct {
	Version    uint64       // 1 is the first; rises by rotation
	Thresholds map[Role]int // how many different keys of a role must sign
	Keys       []Key

	sum [32]byte // of the payload it was read from
}

type keySetJSON struct {
	V          int          `json:"v"`
	Version    uint64       `json:"version"`
	Thresholds map[Role]int `json:"thresholds"`
	Keys       []keyJSON    `json:"keys"`
}

type keyJSON struct {
	Role  Role   `json:"role"`
	Key   []byte `json:"key"` // SubjectPublicKeyInfo, DER
	From  uint64 `json:"from,omitempty"`
	Until uint64 `json:"until,omitempty"`
}

// Check tells whether the set makes sense: known roles, no key twice, and for every
// role enough keys for its threshold.
func (s *KeySet) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: key set: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	if s.Version == 0 {
		return bad("version 0, wants 1 or more")
	}
	if len(s.Keys) > MaxKeys {
		return bad("%d keys, at most %d", len(s.Keys), MaxKeys)
	}
	seen, count := map[string]bool{}, map[Role]int{}
	for i, k := range s.Keys {
		id, err := KeyID(k.Public)
		switch {
		case err != nil:
			return fmt.Errorf("key set: key %d: %w", i+1, err)
		case !slices.Contains(Roles(), k.Role):
			return bad("key %s has the unknown role %.40q", short(id), k.Role)
		case seen[id]:
			return bad("key %s is there twice; one key has one role", short(id))
		case k.Until != 0 && k.Until <= k.From:
			return bad("key %s is good from epoch %d until before %d: never", short(id), k.From, k.Until)
		case k.Role == RoleRoot && (k.From != 0 || k.Until != 0):
			return bad("root key %s has epochs; a root key is ended by the next set", short(id))
		}
		seen[id] = true
		count[k.Role]++
	}
	for r, n := range s.Thresholds {
		if n < 1 || n > count[r] {
			return bad("role %.40q wants %d signatures and has %d keys", r, n, count[r])
		}
	}
	for r := range count {
		if s.Thresholds[r] == 0 {
			return bad("role %q has keys and no threshold", r)
		}
	}
	if n := count[RoleRoot]; n == 0 || n > maxRoot {
		return bad("%d root keys, wants 1 to %d", n, maxRoot)
	}
	return nil
}

// Encode gives the payload for an envelope of [TypeKeySet].
func (s *KeySet) Encode() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	j := keySetJSON{V: 1, Version: s.Version, Thresholds: s.Thresholds}
	for _, k := range s.Keys {
		der, err := marshalPublic(k.Public)
		if err != nil {
			return nil, err
		}
		j.Keys = append(j.Keys, keyJSON{Role: k.Role, Key: der, From: k.From, Until: k.Until})
	}
	return json.Marshal(j)
}

// parseKeySet reads a payload that has been vouched for.
func parseKeySet(b []byte) (*KeySet, error) {
	var j keySetJSON
	if err := strict(b, MaxKeySet, &j); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	if j.V != 1 {
		return nil, fmt.Errorf("%w: key set of form %d, this program knows 1", ErrMalformed, j.V)
	}
	if len(j.Keys) > MaxKeys {
		return nil, fmt.Errorf("%w: key set with %d keys, at most %d", ErrMalformed, len(j.Keys), MaxKeys)
	}
	s := &KeySet{Version: j.Version, Thresholds: j.Thresholds, sum: sha256.Sum256(b)}
	for i, k := range j.Keys {
		pub, err := parsePublic(k.Key)
		if err != nil {
			return nil, fmt.Errorf("key set: key %d: %w", i+1, err)
		}
		s.Keys = append(s.Keys, Key{Role: k.Role, Public: pub, From: k.From, Until: k.Until})
	}
	return s, s.Check()
}

// OpenKeySet opens the set that the caller already trusts by its pin, the SHA-256 of
// the payload; it must also be signed by enough of its own root keys.
func OpenKeySet(e *Envelope, pin [32]byte) (*KeySet, error) {
	if sum := sha256.Sum256(e.payload); subtle.ConstantTimeCompare(sum[:], pin[:]) != 1 {
		return nil, fmt.Errorf("%w: the key set is not the one that the pin names", ErrSignatures)
	}
	if e.Type != TypeKeySet {
		return nil, fmt.Errorf("%w: envelope of type %.100q, wants %q", ErrMalformed, e.Type, TypeKeySet)
	}
	s, err := parseKeySet(e.payload)
	if err != nil {
		return nil, err
	}
	if _, err := s.Verify(e, TypeKeySet, 0); err != nil {
		return nil, fmt.Errorf("key set %d by its own root keys: %w", s.Version, err)
	}
	return s, nil
}

// DraftKeySet reads a set that nobody has vouched for yet: to show it to those who are
// to sign it.
func DraftKeySet(e *Envelope) (*KeySet, error) {
	if e.Type != TypeKeySet {
		return nil, fmt.Errorf("%w: envelope of type %.100q, wants %q", ErrMalformed, e.Type, TypeKeySet)
	}
	return parseKeySet(e.payload)
}

// Pin is the SHA-256 of the payload the set was read from, see [OpenKeySet].
func (s *KeySet) Pin() [32]byte { return s.sum }

// Next opens the set that follows s: of a higher version, signed by enough root keys
// of s and by enough of its own. The set s itself, given again, is s. A lower version,
// or other contents under the same version, is [ErrRollback].
func (s *KeySet) Next(e *Envelope) (*KeySet, error) {
	payload, err := s.Verify(e, TypeKeySet, 0)
	if err != nil {
		return nil, fmt.Errorf("next key set by the present root keys: %w", err)
	}
	next, err := parseKeySet(payload)
	if err != nil {
		return nil, err
	}
	switch {
	case next.Version == s.Version && next.sum == s.sum:
		return s, nil
	case next.Version <= s.Version:
		return nil, fmt.Errorf("%w: a key set of version %d, and version %d is in force", ErrRollback, next.Version, s.Version)
	}
	if _, err := next.Verify(e, TypeKeySet, 0); err != nil {
		return nil, fmt.Errorf("key set %d by its own root keys: %w", next.Version, err)
	}
	return next, nil
}

// Verify gives the payload of an envelope of the wanted type, once enough different
// keys of the type's role that are good at the epoch have signed it; else
// [ErrSignatures], and [ErrMalformed] for another type.
func (s *KeySet) Verify(e *Envelope, want Type, epoch uint64) ([]byte, error) {
	payload, _, err := s.Signers(e, want, epoch)
	return payload, err
}

// Signers is [KeySet.Verify] that also tells who signed: the ids of the role's keys, at
// least as many as its threshold, in the order of the set.
func (s *KeySet) Signers(e *Envelope, want Type, epoch uint64) (payload []byte, ids []string, err error) {
	if err := e.check(); err != nil {
		return nil, nil, err
	}
	role := want.Role()
	if role == "" || e.Type != want {
		return nil, nil, fmt.Errorf("%w: envelope of type %.100q, wants %q", ErrMalformed, e.Type, want)
	}
	for _, k := range s.Keys {
		if k.Role != role || !k.good(epoch) || !e.SignedBy(k.Public) {
			continue
		}
		id, err := KeyID(k.Public)
		if err != nil {
			return nil, nil, err // Check has looked at it
		}
		ids = append(ids, id) // a set holds no key twice
	}
	if need := s.Thresholds[role]; need < 1 || len(ids) < need {
		return nil, nil, fmt.Errorf("%w: role %s wants %d, good at epoch %d and found are %d", ErrSignatures, role, need, epoch, len(ids))
	}
	return e.Unverified(), ids, nil
}
