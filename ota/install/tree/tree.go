// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package tree keeps the versions of a component that is a folder of files (a model, a
// config) side by side, and says which one is in force. A power cut at any moment leaves
// the old choice or the new one.
//
//	DIR/TOKEN/...              one version, never changed after it is there
//	DIR/TOKEN/.component.json  what it is of, written last
//	DIR/state.json             the choice: in force, on trial, gone back from
//	DIR/current -> TOKEN       what readers follow; an effect of the choice
//
// Nothing needs a restart for it: who reads the folder is told of a change.
package tree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"fulmar/internal/disk"
	"fulmar/ota"
)

// Names in the folder. Tokens and files of components begin with no dot.
const (
	stateFile = "state.json"
	linkName  = "current"
	infoFile  = ".component.json"
	newDir    = ".new" // a version that is being written
)

// MaxTries is how often the program may start while a version is on trial, see [Tree.Begin].
// Its own restart for the change is one, and a board whose power fails twice is no bad
// version.
const MaxTries = 5

// Reserve stays free beside a new version, in bytes: the choice is written after it, and
// the spool of the same disk is not to run into its end by an update.
const Reserve = 4 << 20

// Options are what a tree needs.
type Options struct {
	Dir       string // is made where it is missing; the folder above is there
	Component string // its name in releases
	// Check, where there is one, refuses a version by its folder, before it is switched to.
	Check func(dir string) error
	// Restart, where there is one, tells that the program has to start again to go from one
	// folder to another; "" is none.
	Restart func(from, to string) bool
	// Changed, where there is one, is called after the choice has changed.
	Changed func()
	// Mark, where there is one, gives a word that is kept with the choice when a version is
	// switched to; see [Tree.Mark].
	Mark func() string
	// Bases, where there is one, gives folders where files lie that run while nothing of the
	// tree does: a patch may be of one of those.
	Bases func() []string
	Disk  disk.Disk // nil is the machine's
}

// Tree is the versions of one component: an [ota.Installer]. Safe for concurrent use by one
// process; others may read.
type Tree struct {
	o Options

	mu   sync.Mutex
	st   state
	note string // how the choice was found where its file was damaged
}

// Open reads the choice. It changes nothing, and a folder that is not there is an empty one.
func Open(o Options) (*Tree, error) {
	t := &Tree{o: o}
	if t.o.Disk == nil {
		t.o.Disk = disk.OS{}
	}
	var err error
	t.st, t.note, err = t.read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Component, err)
	}
	return t, nil
}

// InForce is the folder of the version that runs and its version, also on trial; "" for none.
func (t *Tree) InForce() (dir, version string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.st.Current == "" {
		return "", ""
	}
	return t.path(t.st.Current), versionOf(t.st.Current)
}

// Mark is Options.Mark's word of when the version in force was switched to.
func (t *Tree) Mark() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.st.Mark
}

// OnTrial tells that what is in force is on trial.
func (t *Tree) OnTrial() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.st.Trial
}

// Note tells how the choice was found where its file was damaged, "" where it was not.
func (t *Tree) Note() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.note
}

// Begin counts a start of the program: call it before the version in force is read. One on
// trial with more than [MaxTries] starts, and one that is damaged, is gone back from; fell
// says so. Where the count cannot be written it goes on as it is.
func (t *Tree) Begin() (fell string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.st.Current == "" {
		return "", nil
	}
	next, token := t.st, t.st.Current
	if _, err := t.get(token); err != nil {
		fell = err.Error()
	} else if next.Trial {
		if next.Tries++; next.Tries > MaxTries {
			fell = fmt.Sprintf("not confirmed in %d starts", MaxTries)
		}
	}
	if fell != "" {
		next = t.fallen(next, fell)
		fell = fmt.Sprintf("%s: went back from %s to %s: %s", t.o.Component, token, orNone(next.Current), fell)
	}
	return fell, t.set(next)
}

func (t *Tree) path(elem ...string) string {
	return filepath.Join(append([]string{t.o.Dir}, elem...)...)
}

// dirOf is the folder of a token, "" for none.
func (t *Tree) dirOf(token string) string {
	if token == "" {
		return ""
	}
	return t.path(token)
}

func orNone(token string) string {
	if token == "" {
		return "none"
	}
	return token
}

// tokenForm: the version and 16 hex digits of what is in it.
var tokenForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9A-Za-z+~_][0-9A-Za-z.+~_-]{0,63}-[0-9a-f]{16}$`)
})

const hashInToken = 16

// ValidToken tells that a text has the form of a token of [Token].
func ValidToken(s string) bool { return len(s) <= ota.MaxToken && tokenForm().MatchString(s) }

func versionOf(token string) string { return token[:len(token)-hashInToken-1] }

var errNotThere = errors.New("is not staged here")

// make makes the tree's folder, durably.
func (t *Tree) make() error {
	if fi, err := os.Stat(t.o.Dir); err == nil && fi.IsDir() {
		return nil
	}
	if err := t.o.Disk.Mkdir(t.o.Dir); err != nil {
		return err
	}
	return t.o.Disk.SyncDir(filepath.Dir(t.o.Dir))
}

// Folder is where a version lies that is whole, "" where it is not.
func (t *Tree) Folder(token string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := t.get(token); err != nil {
		return ""
	}
	return t.path(token)
}
