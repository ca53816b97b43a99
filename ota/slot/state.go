// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package slot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"fulmar/internal/disk"
)

const (
	stateFile = "launch.json"
	linkName  = "current"
	maxState  = 4 << 10 // bytes of launch.json; ours is under 1 KiB
	maxReason = 300     // bytes of a reason; it ends up in a log line and a report
	maxTries  = 1 << 20 // more was never counted: a damaged state
)

// MaxTries is how many starts a slot on trial has to be confirmed.
const MaxTries = 3

// State is the choice, as launch.json has it: one line of JSON and one with its SHA-256.
type State struct {
	V        int    `json:"v"`
	Current  string `json:"current"`            // ID of the slot that is to run; "" = none yet
	Trial    bool   `json:"trial"`              // not confirmed yet
	Tries    int    `json:"tries"`              // starts on trial
	Previous string `json:"previous,omitempty"` // where it goes back to
	Fall     *Fall  `json:"fall,omitempty"`     // the newest going back, until another slot is confirmed
}

// Fall is a going back.
type Fall struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
	Told   bool   `json:"told"` // the fleet has been told
}

var errDamaged = errors.New("launch.json is damaged")

func encodeState(st State) ([]byte, error) {
	st.V = 1
	b, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode launch.json: %w", err)
	}
	sum := sha256.Sum256(b)
	return fmt.Appendf(nil, "%s\n%x\n", b, sum), nil
}

func decodeState(b []byte) (State, error) {
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(line)
	if len(b) > maxState || string(rest) != hex.EncodeToString(sum[:])+"\n" {
		return State{}, errDamaged
	}
	var st State
	if err := json.Unmarshal(line, &st); err != nil {
		return State{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if st.V != 1 {
		return State{}, fmt.Errorf("%w: version %d, this program knows 1", errDamaged, st.V)
	}
	ids := []string{st.Current, st.Previous}
	if st.Fall != nil {
		ids = append(ids, st.Fall.From, st.Fall.To)
	}
	for _, id := range ids {
		if id != "" && !validID(id) {
			return State{}, fmt.Errorf("%w: %.80q is no slot", errDamaged, id)
		}
	}
	if st.Tries < 0 || st.Tries > maxTries {
		return State{}, fmt.Errorf("%w: %d tries", errDamaged, st.Tries)
	}
	return st, nil
}

// State reads the choice. Where launch.json is gone or damaged, note says so and the
// choice is made anew of what is there: the slot that current names, on trial, since
// nothing says that it ever worked; the newest other slot is where it goes back to.
// An error means that the folder cannot be read at all.
func (s *Store) State() (st State, note string, err error) {
	b, err := readAtMost(filepath.Join(s.dir, stateFile), maxState)
	if err == nil {
		if st, err = decodeState(b); err == nil {
			return st, "", nil
		}
		note = err.Error()
	} else if errors.Is(err, fs.ErrNotExist) {
		note = "launch.json is not there"
	} else {
		return State{}, "", fmt.Errorf("read the choice of slot: %w", err)
	}
	slots, err := s.List()
	if err != nil {
		return State{}, "", err
	}
	if id := s.link(); id != "" {
		st.Current = id
	}
	for _, sl := range slots {
		switch {
		case st.Current == "":
			st.Current = sl.ID
		case st.Previous == "" && sl.ID != st.Current:
			st.Previous = sl.ID
		}
	}
	st.Trial = st.Current != ""
	if st == (State{}) {
		note = "" // an empty folder: nothing was lost
	}
	return st, note, nil
}

// link is the slot that current names, "" for none.
func (s *Store) link() string {
	to, err := os.Readlink(filepath.Join(s.dir, linkName))
	id, ok := strings.CutPrefix(to, slotsDir+"/")
	if err != nil || !ok || !validID(id) {
		return ""
	}
	return id
}

// save makes the state durable.
func (s *Store) save(st State) error {
	b, err := encodeState(st)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, stateFile)
	tmp := filepath.Join(s.dir, "."+stateFile+".new")
	if err := disk.Put(s.disk, tmp, 0o644, b); err != nil {
		return fmt.Errorf("keep the choice of slot: %w", err)
	}
	if err := s.disk.Rename(tmp, path); err != nil {
		return fmt.Errorf("keep the choice of slot: %w", err)
	}
	return s.disk.SyncDir(s.dir)
}

// relink makes current name the slot, durably.
func (s *Store) relink(id string) error {
	if s.link() == id {
		return nil
	}
	tmp := filepath.Join(s.dir, "."+linkName+".new")
	if err := s.disk.RemoveAll(tmp); err != nil {
		return fmt.Errorf("point current to slot %s: %w", id, err)
	}
	if err := s.disk.Symlink(slotsDir+"/"+id, tmp); err != nil {
		return fmt.Errorf("point current to slot %s: %w", id, err)
	}
	if err := s.disk.Rename(tmp, filepath.Join(s.dir, linkName)); err != nil {
		return fmt.Errorf("point current to slot %s: %w", id, err)
	}
	return s.disk.SyncDir(s.dir)
}
