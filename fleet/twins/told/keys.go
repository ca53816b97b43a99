// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package told

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fulmar/schema"
	"fulmar/schema/rest"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// ErrInvalid: what was asked for cannot be in a twin. The text says what and why.
var ErrInvalid = errors.New("not taken")

// ErrNoConflict: the key is not in conflict, or no longer.
var ErrNoConflict = errors.New("is not in conflict")

// KeyError tells which key of a patch cannot be in a twin.
type KeyError struct{ Key, Detail string }

// Error implements error.
func (e *KeyError) Error() string { return fmt.Sprintf("%.96s %s", e.Key, e.Detail) }

// Is makes it an [ErrInvalid].
func (e *KeyError) Is(err error) bool { return errors.Is(ErrInvalid, err) }

// Values reads a patch.
func Values(p rest.TwinPatch) (map[string]twin.Value, error) {
	if len(p.Set) == 0 || len(p.Set) > wire.MaxKeys {
		return nil, fmt.Errorf("%w: a patch of %d keys, wants 1 to %d", ErrInvalid, len(p.Set), wire.MaxKeys)
	}
	if len(p.Reason) > schema.MaxFact {
		return nil, fmt.Errorf("%w: a reason of %d bytes, at most %d", ErrInvalid, len(p.Reason), schema.MaxFact)
	}
	out := map[string]twin.Value{}
	for _, key := range slices.Sorted(maps.Keys(p.Set)) {
		if !named(key) {
			return nil, &KeyError{key, fmt.Sprintf("is no name of a key: 1 to %d of a-z 0-9 - _ . / with a letter or digit first", wire.MaxKey)}
		}
		v, err := valueOf(p.Set[key])
		if err != nil {
			return nil, &KeyError{key, err.Error()}
		}
		out[key] = v
	}
	return out, nil
}

func named(key string) bool {
	if key == "" || len(key) > wire.MaxKey || strings.IndexByte("-_./", key[0]) >= 0 {
		return false
	}
	return strings.IndexFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./", r)
	}) < 0
}

// What a patch does to a key.
const (
	doesSet      = "set"
	doesDelete   = "delete"
	doesNothing  = "nothing"
	doesDoubtful = "doubtful"
)

// families are the keys that boards of this release know; a * stands for a name. The
// board checks each value by what it has and is.
func families() []string {
	return []string{
		"log.level", "shed", "sample.*.period", "camera.*.fps", "camera.*.event_every", "camera.*.snapshot_every",
		"model.*.variant", "model.*.engine", "model.*.paused", "rule.*", "limit.*.min", "limit.*.max", "app.*",
	}
}

func familiar(key string) bool {
	return slices.ContainsFunc(families(), func(f string) bool {
		head, tail, any := strings.Cut(f, "*")
		return !any && key == f || any && len(key) > len(head)+len(tail) && strings.HasPrefix(key, head) && strings.HasSuffix(key, tail)
	})
}

// Check tells what would become of each key.
func (s *State) Check(board string, reported map[string]twin.Value, values map[string]twin.Value) (out []rest.TwinCheck) {
	anew := News(s.Known, values)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		c := rest.TwinCheck{Board: board, Key: key, Does: doesSet}
		_, changes := anew[key]
		switch why := s.doubt(key, values[key], reported); {
		case !changes:
			c.Does = doesNothing
		case values[key] == nil:
			c.Does = doesDelete
		case why != "":
			c.Does, c.Why = doesDoubtful, why
		}
		out = append(out, c)
	}
	return out
}

// doubt tells what speaks against a value, by what the board has said.
func (s *State) doubt(key string, v twin.Value, reported map[string]twin.Value) string {
	for _, k := range s.Known {
		if why := s.Refused[key]; why != "" && k.Key == key && k.Fleet != nil && bytes.Equal(k.Fleet.Value, v) {
			return "the board refused just this value: " + why
		}
	}
	if _, says := reported["config."+key]; says {
		return ""
	}
	if output, ok := strings.CutPrefix(key, "limit."); ok && len(reported) > 0 {
		if i := strings.LastIndexByte(output, '.'); i > 0 && reported["output."+output[:i]] == nil {
			return "the board reports no output of this name"
		}
	}
	if !familiar(key) {
		return "no board of this release knows the key; one that knows more may take it"
	}
	return ""
}

// News leaves out what is so already: a patch that is sent twice changes once.
func News(known []twin.Known, values map[string]twin.Value) map[string]twin.Value {
	out := maps.Clone(values)
	for _, k := range known {
		v, asked := out[k.Key]
		if asked && k.Fleet != nil && bytes.Equal(k.Fleet.Value, v) && (len(k.Board) == 0 || k.Replaced) {
			delete(out, k.Key)
		}
	}
	maps.DeleteFunc(out, func(key string, v twin.Value) bool {
		return v == nil && !slices.ContainsFunc(known, func(k twin.Known) bool { return k.Key == key })
	})
	return out
}
