// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package programs brings fulmard and its worker into force: the components agent and
// worker, over the slots of package slot (ADR 0058).
//
// A new slot is what the component brings and, of the slot in force, all the rest. The
// launcher counts the starts of fulmard from a slot on trial and goes back, whichever part
// is new. The worker follows the choice of slot at its own start; Options.RestartWorker
// has it start anew where its files are others, and fulmard goes on.
//
// The launcher is no part of any slot: it comes with the package alone.
package programs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"fulmar/internal/disk"
	"fulmar/internal/strictjson"
	"fulmar/ota"
	"fulmar/ota/slot"
)

// The components.
const (
	Agent  = "agent"
	Worker = "worker"
)

const (
	notesFile = "programs.json"
	maxNotes  = 4 << 10 // bytes; two tokens and a hash are under 1 KiB
)

// Options are what programs need.
type Options struct {
	Slots *slot.Store
	// Dir is a folder for notes of its own, DATA/ota. It is there.
	Dir string
	// Self is the slot that this process runs from, "" where it is none.
	Self string
	// RestartWorker has the worker start anew, and returns when that was asked of it; nil
	// too where none runs, as the next one to start takes the right slot by itself.
	RestartWorker func(context.Context) error
	Disk          disk.Disk // nil is the machine's
}

// Programs are those of one board. Safe for concurrent use.
type Programs struct {
	o    Options
	self *slot.File // fulmard of this process, nil where it is not known
	mine slot.Slot  // its slot

	mu sync.Mutex
}

// New makes them. It changes nothing.
func New(o Options) *Programs {
	p := &Programs{o: o}
	if p.o.Disk == nil {
		p.o.Disk = disk.OS{}
	}
	if o.Self != "" {
		if sl, err := o.Slots.Get(o.Self); err == nil {
			f := sl.Files[slot.Agent]
			p.self, p.mine = &f, sl
		}
	}
	return p
}

// Installer is the one of a component, nil where it is none of ours.
func (p *Programs) Installer(component string) ota.Installer {
	if component != Agent && component != Worker {
		return nil
	}
	return &part{p: p, name: component}
}

// Owns tells that an update has put a slot on trial and neither confirmed it nor gone back:
// who confirms the slots of packages leaves that one alone.
func (p *Programs) Owns(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, _ := p.notes()
	for _, x := range []note{n.Agent, n.Worker} {
		if x.Token == id && x.Phase != phaseStaged {
			return true
		}
	}
	return false
}

// The phases of a note. They tell a going back of this try from one before it.
const (
	phaseStaged    = "staged"
	phaseSwitching = "switching" // written before the choice is changed
	phaseSwitched  = "switched"  // and after it
)

// note is what is known of a component's newest token beside the choice of slot.
type note struct {
	Token string `json:"token"`
	Phase string `json:"phase"`
	Base  string `json:"base"` // the slot that was in force when it was put together
}

// notes are what programs.json holds.
type notes struct {
	V      int  `json:"v"`
	Agent  note `json:"agent"`
	Worker note `json:"worker"`
	// Started is what of the worker's files was in force when it was last started anew.
	Started string `json:"started"`
}

func (n *notes) of(component string) *note {
	if component == Agent {
		return &n.Agent
	}
	return &n.Worker
}

// notes reads them; first tells that there are none yet. Damaged ones are as if nothing
// was known: what was staged is staged again, and the worker started once too often.
func (p *Programs) notes() (n notes, first bool) {
	b, err := readAtMost(filepath.Join(p.o.Dir, notesFile), maxNotes)
	if errors.Is(err, fs.ErrNotExist) {
		return notes{V: 1}, true
	}
	if err != nil || strictjson.Decode(b, maxNotes, &n) != nil || n.V != 1 {
		return notes{V: 1}, false
	}
	return n, false
}

func (p *Programs) save(n notes) error {
	b, err := json.Marshal(n)
	if err == nil {
		err = disk.Replace(p.o.Disk, filepath.Join(p.o.Dir, notesFile), 0o600, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep what is known of the programs: %w", err)
	}
	return nil
}

// current is the choice and its slot. The slot's ID is "" where there is none.
func (p *Programs) current() (slot.State, slot.Slot, error) {
	st, note, err := p.o.Slots.State()
	if err != nil {
		return st, slot.Slot{}, err
	}
	if note != "" {
		return st, slot.Slot{}, fmt.Errorf("the choice of slot is not sure: %s", note)
	}
	if st.Current == "" {
		return st, slot.Slot{}, nil
	}
	sl, err := p.o.Slots.Get(st.Current)
	return st, sl, err
}

// runs tells whether this process is the fulmard of a slot; where it cannot know it is.
func (p *Programs) runs(id string) bool {
	if p.self == nil || id == p.o.Self {
		return true
	}
	sl, err := p.o.Slots.Get(id)
	return err == nil && sl.Files[slot.Agent] == *p.self
}

// held are the slots that nobody may remove: those that are staged or on trial, and the one
// that this process runs from: it starts children out of it.
func (p *Programs) held(n *notes) []string {
	return []string{p.o.Self, n.Agent.Token, n.Worker.Token}
}

// Follow has the worker start anew if the slot in force has other files of it than when it
// was last started anew. What was cut off before it could be asked is asked now.
func (p *Programs) Follow(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.follow(ctx)
}

func (p *Programs) follow(ctx context.Context) error {
	_, cur, err := p.current()
	if err != nil || cur.ID == "" {
		return err
	}
	n, first := p.notes()
	is := workerKey(&cur)
	if n.Started == is {
		return nil
	}
	if !first && p.o.RestartWorker != nil {
		if err := p.o.RestartWorker(ctx); err != nil {
			return fmt.Errorf("start the worker of slot %s: %w", cur.ID, err)
		}
	}
	n.Started = is
	return p.save(n)
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
