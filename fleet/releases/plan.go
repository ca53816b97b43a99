// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package releases

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"fulmar/ota/release"
	"fulmar/schema"
)

// Wanted is a component of a release as a rollout wants it.
type Wanted struct {
	Component *release.Component
	Epoch     uint64
	Hash      release.Hash // of the manifest
	Envelope  []byte
	Bytes     int64 // what a board downloads that has nothing

	entry *entry
}

// Want gives a component of a release that boards can be brought to. Its errors are
// sentences for who plans, with what to do.
func (x *Releases) Want(tenant, component, name string) (*Wanted, error) {
	e, err := x.find(tenant, name)
	if err != nil {
		return nil, fmt.Errorf("%w; bring it: fulmar release upload, or on the page: Releases", err)
	}
	c := e.manifest.Component(component)
	switch {
	case c == nil:
		var has []string
		for i := range e.manifest.Components {
			has = append(has, e.manifest.Components[i].Name)
		}
		return nil, fmt.Errorf("%w: release %s has no component %s; it has %s", ErrUnknown, name, component, strings.Join(has, ", "))
	case e.row.Ready.IsZero():
		return nil, fmt.Errorf("%w: %d of release %s; bring them: fulmar release upload", ErrMissing, len(x.missing(e)), name)
	case !e.trusted:
		return nil, fmt.Errorf("%w: the key set in force does not hold the keys that signed release %s any more, and boards refuse it: sign it anew under another name", ErrUntrusted, name)
	}
	w := &Wanted{Component: c, Epoch: e.row.Epoch, Hash: e.row.Hash, Envelope: e.row.Envelope, entry: e}
	for i := range c.Files {
		w.Bytes += shortest(&c.Files[i])
	}
	return w, nil
}

// Here tells whether all of the release is here still: a disk may have been lost since.
func (w *Wanted) Here(x *Releases) error {
	if m := x.missing(w.entry); len(m) > 0 {
		return fmt.Errorf("%w: %d of release %s are gone from this server's disk; bring them again: fulmar release upload", ErrMissing, len(m), w.entry.row.Name)
	}
	return nil
}

// Runs tells whether what a board says it runs is this.
func (w *Wanted) Runs(says string) bool { return w.entry.runs(w.Component, says) }

// Lacks tells what a board lacks for it, by its facts and what it runs; "" nothing.
func (w *Wanted) Lacks(facts, running map[string]string) string {
	if lacks := w.Component.Needs.Unmet(facts, running); len(lacks) > 0 {
		return strings.Join(lacks, "; ")
	}
	return ""
}

// Matches holds what a board attests to run against the release: "" where it is that, else
// what is wrong.
func (w *Wanted) Matches(r *schema.AttestReport) string {
	sum := r.Program
	if name, ok := strings.CutPrefix(w.Component.Name, "model/"); ok {
		if sum, ok = r.Models[name]; !ok {
			return fmt.Sprintf("the board runs no model %s", name)
		}
	} else if w.Component.Name != "agent" {
		return w.inForce(r)
	}
	text := hex.EncodeToString(sum)
	if slices.Contains(w.entry.inside[w.Component.Name], text) || slices.ContainsFunc(w.Component.Files, func(f release.File) bool { return f.SHA256.String() == text }) {
		return ""
	}
	return fmt.Sprintf("the board runs %.16s..., which is no file of %s in release %s", text, w.Component.Name, w.entry.row.Name)
}

// inForce is Matches for what is told by its version and its files. A report that names no
// file is of a fulmard that knew none, or of a component whose files nobody can look at, a
// root file system.
func (w *Wanted) inForce(r *schema.AttestReport) string {
	name := w.Component.Name
	if v := r.Components[name]; v != "" && v != w.Component.Version { // a site's own program need not know it
		return fmt.Sprintf("the board runs %s %.80q, and release %s has %q", name, v, w.entry.row.Name, w.Component.Version)
	}
	told := false
	for path := range r.Files {
		told = told || strings.HasPrefix(path, name+"/")
	}
	if !told {
		return ""
	}
	for i := range w.Component.Files {
		f := &w.Component.Files[i]
		sum := r.Files[name+"/"+f.Path]
		fits := len(name)+1+len(f.Path) <= schema.MaxName && len(r.Files) < schema.MaxReportFiles
		if (fits || sum != nil) && !f.Unpack && !bytes.Equal(sum, f.SHA256[:]) {
			return fmt.Sprintf("%s of %s is %.16x... on the board, and %.16s... in release %s", f.Path, name, sum, f.SHA256, w.entry.row.Name)
		}
	}
	return ""
}
