// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package shadow

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/shadow/settings"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// Reported keys that the shadow says itself.
const (
	// ReportConfig begins the keys that say what is in force: config.log.level.
	ReportConfig = "config."
	// ReportRefused is a map of the keys that are not as they are set, with the reason.
	ReportRefused = "twin.refused"
)

// maxConfigKeys bounds the keys of what is in force: the section has wire.MaxKeys for all
// parts of the board. Those that the twin sets come first.
const maxConfigKeys = 96

// applied is what was put in force last.
type applied struct {
	done      bool
	cfg       config.Config
	effective map[string]twin.Value
	err       error
	said      map[string]twin.Value // reported of it
}

// Overlaid gives the config of the board's file with what holds over it: what to start
// with.
func (s *Shadow) Overlaid() config.Config {
	base := s.cfg.Base()
	c, _, err := settings.Overlay(&base, s.Effective())
	if err != nil {
		s.cfg.Log.Error("the twin is not over the config", "err", err)
	}
	return c
}

// apply puts in force what holds, if it is not.
func (s *Shadow) apply(ctx context.Context) {
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	eff, trials := effective(s.st.board), s.trials
	s.mu.Unlock()
	base := s.cfg.Base()
	cfg, left, err := settings.Overlay(&base, eff)
	a := &s.applied
	same := a.done && a.err == nil && maps.EqualFunc(a.effective, eff, func(x, y twin.Value) bool { return bytes.Equal(x, y) }) && reflect.DeepEqual(a.cfg, cfg)
	if err == nil && !same {
		err = s.cfg.Apply(ctx, &cfg, eff)
	}
	a.done, a.cfg, a.effective, a.err = true, cfg, eff, err
	if err != nil {
		s.cfg.Log.Error("what the twin sets could not be put in force", "err", err)
		s.end(trials, bad, "it could not be put in force: "+err.Error())
	}
	s.sayApplied(&cfg, eff, left)
}

// sayApplied reports what is in force and what is refused.
func (s *Shadow) sayApplied(cfg *config.Config, eff map[string]twin.Value, left map[string]error) {
	_, refused := s.Version()
	for key, err := range left {
		if _, known := refused[key]; !known {
			refused[key] = err.Error()
		}
	}
	values := settings.Values(cfg)
	keys := slices.SortedFunc(maps.Keys(values), func(x, y string) int {
		_, xs := eff[x]
		_, ys := eff[y]
		if xs != ys {
			return map[bool]int{true: -1, false: 1}[xs]
		}
		return strings.Compare(x, y)
	})
	say := map[string]twin.Value{ReportRefused: reasons(refused)}
	for _, k := range keys[:min(len(keys), maxConfigKeys)] {
		if name := ReportConfig + k; len(name) <= wire.MaxKey {
			say[name] = values[k]
		}
	}
	now := maps.Clone(say)
	for k := range s.applied.said {
		if _, still := say[k]; !still {
			say[k] = nil
		}
	}
	if err := s.Report(say); err != nil {
		s.cfg.Log.Warn("what is in force is not reported", "err", err)
		return
	}
	s.applied.said = now
}

// maxReason is the longest reason that is reported, in bytes.
const maxReason = 160

// reasons encodes the refused keys with their reasons, as many as one value holds; nil if
// there are none.
func reasons(refused map[string]string) twin.Value {
	keys := slices.Sorted(maps.Keys(refused))
	for n := len(keys); n > 0; n-- {
		m := map[string]any{}
		for _, k := range keys[:n] {
			m[k] = clip(refused[k], maxReason)
		}
		if n < len(keys) {
			m["..."] = fmt.Sprintf("and %d more", len(keys)-n)
		}
		if v, err := twin.ValueOf(m); err == nil {
			return v
		}
	}
	return nil
}

// Key is what holds of one key, for a person to look at.
type Key struct {
	Key   string
	Value twin.Value // nil: nothing holds, it is refused
	From  twin.Source
	// Left is what is left of the lease of what was set on the board; 0: no lease.
	Left     time.Duration
	Refused  string // why the fleet's value does not hold; "undone: ..." if it was gone back from
	Conflict bool   // a person has to decide
	OnTrial  bool
}

// Look gives the keys that are set or refused, in order, and the desired version.
func (s *Shadow) Look() (version uint64, keys []Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.st.board
	version, refused := b.Version()
	held := map[string]bool{}
	for _, c := range b.Conflicts() {
		held[c.Key] = true
	}
	all := map[string]bool{}
	for _, k := range b.Keys() {
		all[k] = true
	}
	for k := range refused {
		all[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		key := Key{Key: k, Refused: refused[k], Conflict: held[k], OnTrial: s.st.trial != nil && slices.Contains(s.st.trial.Keys, k)}
		key.Value, key.From = b.Effective(k)
		key.Left, _ = b.Lease(k)
		keys = append(keys, key)
	}
	return version, keys
}

// Get gives the value of a key that holds, and where it comes from; nil: none.
func (s *Shadow) Get(key string) (twin.Value, twin.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.board.Effective(key)
}

// Effective gives what holds, by key.
func (s *Shadow) Effective() map[string]twin.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	return effective(s.st.board)
}

// Version gives the newest desired version that is here, and why of what it sets is not
// applied, by key.
func (s *Shadow) Version() (version uint64, refused map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.board.Version()
}

// Conflicts gives the keys that a person has to decide.
func (s *Shadow) Conflicts() []twin.Conflict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.board.Conflicts()
}

// History gives the last [MaxHistory] changes, the oldest first.
func (s *Shadow) History() []Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.st.history)
}
