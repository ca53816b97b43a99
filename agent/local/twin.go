// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"time"

	"fulmar/agent/shadow"
	"fulmar/command"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/twin"
	"fulmar/twin/wire"
)

// maxLease is the longest lease, in seconds: a year, after which nobody remembers.
const maxLease = 366 * 24 * 60 * 60

func (s *Server) twin() (Twin, error) {
	if t := s.cfg.Twin(); t != nil {
		return t, nil
	}
	return nil, refuse(http.StatusServiceUnavailable, onboard.NotReady, "this board has no twin yet: it gets its name with its enrolment")
}

func (s *Server) keys(a *answer, _ *http.Request, _ caller) error {
	t, err := s.twin()
	if err != nil {
		return err
	}
	return a.json(keysOf(t))
}

// keysOf gives all keys; of those set on the board also who did it, as far as the history
// goes back.
func keysOf(t Twin) []onboard.Key {
	_, all := t.Look()
	history := t.History()
	out := []onboard.Key{}
	for _, k := range all {
		o := onboard.Key{Key: k.Key, Value: jsonOf(k.Value), Left: int64(k.Left / time.Second), Refused: k.Refused, Conflict: k.Conflict, OnTrial: k.OnTrial}
		switch k.From {
		case twin.FromDesired:
			o.From = "fleet"
		case twin.FromOverride:
			o.From = "board"
			for _, c := range slices.Backward(history) {
				if c.Key == k.Key && c.Kind == shadow.KindSet {
					o.Author, o.Reason = c.Author, c.Reason
					break
				}
			}
		}
		out = append(out, o)
	}
	return out
}

func jsonOf(v twin.Value) json.RawMessage {
	b, err := command.ToJSON(v)
	if err != nil {
		return nil
	}
	return b
}

func keyOf(t Twin, key string) (onboard.Key, bool) {
	all := keysOf(t)
	i := slices.IndexFunc(all, func(k onboard.Key) bool { return k.Key == key })
	if i < 0 {
		return onboard.Key{Key: key}, false
	}
	return all[i], true
}

func (s *Server) key(a *answer, r *http.Request, _ caller) error {
	t, err := s.twin()
	if err != nil {
		return err
	}
	k, known := keyOf(t, r.PathValue("key"))
	if !known {
		no := refuse(http.StatusNotFound, onboard.NotKnown, "the twin has no key %.96q", k.Key)
		no.Do = "fulmar local twin shows those that are set"
		return no
	}
	return a.json(k)
}

func (s *Server) set(a *answer, r *http.Request, c caller) error {
	t, err := s.twin()
	if err != nil {
		return err
	}
	var in onboard.Set
	if err := read(r, &in); err != nil {
		return err
	}
	e, err := edit(&in)
	if err != nil {
		return err
	}
	key := r.PathValue("key")
	if len(key) > wire.MaxKey {
		return refuse(http.StatusBadRequest, onboard.BadRequest, "a key of %d bytes, at most %d", len(key), wire.MaxKey)
	}
	e.Author = c.actor()
	if err := t.Set(key, e); err != nil {
		return refuse(http.StatusConflict, "refused", "%s", err)
	}
	s.cfg.Log.Info("local set", "actor", e.Author, "key", key, "for", time.Duration(e.LeaseMs)*time.Millisecond, "reason", e.Reason)
	k, _ := keyOf(t, key)
	return a.json(k)
}

// edit reads what a key is to be set to.
func edit(in *onboard.Set) (twin.Edit, error) {
	var e twin.Edit
	if len(in.Reason) > schema.MaxFact {
		return e, refuse(http.StatusBadRequest, onboard.BadRequest, "a reason of %d bytes, at most %d", len(in.Reason), schema.MaxFact)
	}
	if in.For < 0 || in.For > maxLease {
		return e, refuse(http.StatusBadRequest, onboard.BadRequest, "for_s: %d, wants 0 (until it is cleared) to %d", in.For, maxLease)
	}
	if len(in.Value) == 0 || string(in.Value) == "null" {
		return e, refuse(http.StatusBadRequest, onboard.BadRequest, "no value; to take back what was set on the board, clear the key")
	}
	v, err := anyOf(in.Value)
	if err == nil {
		e.Value, err = twin.ValueOf(v)
	}
	if err != nil {
		return e, refuse(http.StatusBadRequest, onboard.BadRequest, "the value: %s", clip(err.Error()))
	}
	e.Reason, e.LeaseMs = in.Reason, uint64(in.For)*1000
	return e, nil
}

// anyOf reads JSON into what a twin holds. A number without a fraction is a whole one, as
// the fleet has it: 5 and 5.0 are one value.
func anyOf(b json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return plain(v)
}

func plain(v any) (_ any, err error) {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i, nil
		}
		f, err := v.Float64()
		if err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f), nil
		}
		return f, err
	case []any:
		for i := range v {
			if v[i], err = plain(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = plain(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func (s *Server) clear(a *answer, r *http.Request, c caller) error {
	t, err := s.twin()
	if err != nil {
		return err
	}
	key := r.PathValue("key")
	was, err := t.Clear(key, c.actor())
	if err != nil {
		return err
	}
	s.cfg.Log.Info("local clear", "actor", c.actor(), "key", clip(key), "was", was)
	k, _ := keyOf(t, key)
	return a.json(onboard.Cleared{Was: was, Key: k})
}

func (s *Server) conflicts(a *answer, _ *http.Request, _ caller) error {
	t, err := s.twin()
	if err != nil {
		return err
	}
	out := []onboard.Conflict{}
	for _, c := range t.Conflicts() {
		o := onboard.Conflict{Key: c.Key, Policy: c.Policy.String(), Holds: jsonOf(c.Holds)}
		if c.Fleet != nil {
			e := editOf(*c.Fleet)
			o.Fleet = &e
		}
		for _, e := range c.Board {
			o.Board = append(o.Board, editOf(e))
		}
		out = append(out, o)
	}
	return a.json(out)
}

func editOf(e twin.Edit) onboard.Edit {
	return onboard.Edit{Value: jsonOf(e.Value), Author: e.Author, Reason: e.Reason, For: int64(min(e.LeaseMs/1000, maxLease))}
}

func (s *Server) history(a *answer, r *http.Request, _ caller) error {
	t, err := s.twin()
	if err != nil {
		return err
	}
	n, err := number(r, "n", onboard.MaxRecent)
	if err != nil {
		return err
	}
	out := []onboard.Change{}
	for _, c := range slices.Backward(t.History()) {
		if len(out) == n {
			break
		}
		out = append(out, onboard.Change{At: wall(c.At), Kind: c.Kind, Key: c.Key, Version: c.Version, Value: jsonOf(c.Value), Author: c.Author, Reason: c.Reason})
	}
	return a.json(out)
}
