// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long changed files must be quiet before they are read: editors write in
// several steps.
const settle = 300 * time.Millisecond

// Watch calls changed whenever the config file at path or one of its drop-ins was
// written, and has been quiet since for a moment, until the context ends. The folder of
// drop-ins may come and go. What cannot be watched is logged, and is no error. begun is
// called once the files are watched: what changed before that nobody was told.
func Watch(ctx context.Context, path string, log *slog.Logger, begun, changed func()) {
	const restart = "changes need a restart"
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("config file is not watched: "+restart, "err", err)
		return
	}
	defer w.Close()
	// The folder is watched, not the file: a rename over it replaces the inode.
	if err := w.Add(filepath.Dir(path)); err != nil {
		log.Warn("config file is not watched: "+restart, "err", err)
		return
	}
	dropIns := DropInDir(path)
	addDropIns := func() { // the watch ends by itself when the folder goes
		if err := w.Add(dropIns); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("config folder is not watched: "+restart, "folder", dropIns, "err", err)
		}
	}
	addDropIns()
	begun()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-w.Events:
			if filepath.Clean(ev.Name) == dropIns && ev.Has(fsnotify.Create) {
				addDropIns() // what was put into it before this is read, too
			}
			if ofConfig(path, ev) {
				timer.Reset(settle)
			}
		case err := <-w.Errors:
			log.Warn("watching the config file", "err", err)
		case <-timer.C:
			changed()
		}
	}
}

// ofConfig tells whether an event is about a file that the config is read from.
func ofConfig(path string, ev fsnotify.Event) bool {
	name, dropIns := filepath.Clean(ev.Name), DropInDir(path)
	switch {
	case ev.Op == fsnotify.Chmod:
		return false
	case name == filepath.Clean(path), name == dropIns:
		return true
	}
	return filepath.Dir(name) == dropIns && IsDropIn(filepath.Base(name))
}
