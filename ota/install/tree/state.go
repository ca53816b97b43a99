// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"fulmar/internal/disk"
	"fulmar/internal/strictjson"
)

const (
	maxState  = 4 << 10 // bytes of state.json; ours is under 1 KiB
	maxReason = 300     // bytes of a reason; it ends up in a log line and a report
	maxMark   = 1 << 10 // bytes of a mark: a path
	maxTries  = 1 << 20 // more was never counted: a damaged state
)

// state is the choice, as state.json has it: one line of JSON and one with its SHA-256. It
// changes as a whole, so no two of its words can tell different stories.
type state struct {
	V        int    `json:"v"`
	Current  string `json:"current,omitempty"`  // "" = nothing of the tree is in force
	Trial    bool   `json:"trial,omitempty"`    // of Current
	Tries    int    `json:"tries,omitempty"`    // starts on trial
	Previous string `json:"previous,omitempty"` // where it goes back to; "" = to nothing
	// Mark and PreviousMark are Options.Mark's words when Current and Previous were switched to.
	Mark         string `json:"mark,omitempty"`
	PreviousMark string `json:"previous_mark,omitempty"`
	Fell         string `json:"fell,omitempty"` // the newest token that was gone back from
	Why          string `json:"why,omitempty"`
}

func decodeState(b []byte) (st state, err error) {
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	sum := sha256.Sum256(line)
	if len(b) > maxState || string(rest) != hex.EncodeToString(sum[:])+"\n" {
		return state{}, errors.New("is damaged")
	}
	if err := strictjson.Decode(line, maxState, &st); err != nil {
		return state{}, fmt.Errorf("is damaged: %w", err)
	}
	if st.V != 1 || st.Tries < 0 || st.Tries > maxTries || len(st.Why) > maxReason || len(st.Mark) > maxMark || st.Trial && st.Current == "" {
		return state{}, fmt.Errorf("is of version %d with %d tries, this program reads 1", st.V, st.Tries)
	}
	for _, token := range []string{st.Current, st.Previous, st.Fell} {
		if token != "" && !ValidToken(token) {
			return state{}, fmt.Errorf("is damaged: %.140q is no token", token)
		}
	}
	return st, nil
}

func encodeState(st state) ([]byte, error) {
	st.V = 1
	b, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return fmt.Appendf(nil, "%s\n%x\n", b, sum), nil
}

// read reads the choice. Where its file is damaged, what the link names goes on.
func (t *Tree) read() (st state, note string, err error) {
	b, err := readAtMost(t.path(stateFile), maxState)
	if err == nil {
		if st, err = decodeState(b); err == nil {
			return st, "", nil
		}
		note = t.path(stateFile) + " " + err.Error()
	} else if errors.Is(err, fs.ErrNotExist) {
		if t.link() == "" {
			return state{V: 1}, "", nil // nothing was ever switched to
		}
		note = t.path(stateFile) + " is gone"
	} else {
		return state{}, "", fmt.Errorf("read the choice: %w", err)
	}
	return state{V: 1, Current: t.link()}, note + "; what " + linkName + " names goes on", nil
}

// link is what current names, "" for none.
func (t *Tree) link() string {
	if to, err := os.Readlink(t.path(linkName)); err == nil && ValidToken(to) {
		return to
	}
	return ""
}

// set makes a choice durable, and then the link.
func (t *Tree) set(next state) error {
	if next != t.st || t.note != "" {
		b, err := encodeState(next)
		if err == nil {
			err = t.make()
		}
		if err == nil {
			err = disk.Replace(t.o.Disk, t.path(stateFile), 0o644, b)
		}
		if err != nil {
			return fmt.Errorf("keep the choice of %s: %w", t.o.Component, err)
		}
		t.st, t.note = next, ""
	}
	if err := t.relink(); err != nil {
		return fmt.Errorf("point %s to %s: %w", t.path(linkName), orNone(next.Current), err)
	}
	return nil
}

// relink mends the link where it names another version than the choice.
func (t *Tree) relink() error {
	path, want := t.path(linkName), t.st.Current
	to, err := os.Readlink(path)
	switch {
	case err == nil && to == want, errors.Is(err, fs.ErrNotExist) && want == "":
		return nil
	case want == "":
		err = t.o.Disk.RemoveAll(path)
	default:
		tmp := t.path("." + linkName + ".new")
		if err = t.o.Disk.RemoveAll(tmp); err == nil {
			err = t.o.Disk.Symlink(want, tmp)
		}
		if err == nil {
			err = t.o.Disk.Rename(tmp, path)
		}
	}
	if err != nil {
		return err
	}
	return t.o.Disk.SyncDir(t.o.Dir)
}

// fallen is the choice after going back: to what ran before, if that is whole.
func (t *Tree) fallen(st state, why string) state {
	to, mark := st.Previous, st.PreviousMark
	if to != "" {
		if _, err := t.get(to); err != nil {
			to, mark, why = "", "", why+"; "+err.Error()
		}
	}
	return state{V: 1, Current: to, Mark: mark, Fell: st.Current, Why: clip(why)}
}

// clip makes a reason one line of bounded length.
func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}

func readAtMost(path string, most int64) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", path, fi.Size(), most)
	}
	return os.ReadFile(path)
}
