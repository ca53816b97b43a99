// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"fulmar/schema"
	"fulmar/storage/journal"
)

// Bounds of what is remembered.
const (
	// maxQueue is how many accepted commands wait to be begun. Who gives more than a
	// minute's work at once wants to hear of it.
	maxQueue = 64
	// maxEnded is how many results are kept to be told again, the newest.
	maxEnded = 256
	// maxUntold is how many results may wait to be told before no more is accepted.
	maxUntold = 1024
	// maxActors is how many people, rules and fleets may give commands to one board.
	maxActors = 64
	// compactAt is the size of the journal at which what is over goes out of it.
	compactAt = 1 << 20
)

// Log is where the ledger writes: a journal.Journal.
type Log interface {
	Append(entries ...[]byte) error
	Rewrite(entries [][]byte) error
	Size() int64
}

// op is what one entry of the journal says.
type op uint8

const (
	opAccept op = 1 // Command
	opBegin  op = 2 // ID
	opEnd    op = 3 // Result, and of a command that was never accepted its Actor and Seq
	opTold   op = 4 // ID
	opActor  op = 5 // Actor, Seq: the highest number that came
)

// line is one entry of the journal.
type line struct {
	Op      op       `cbor:"1,keyasint"`
	Command *Command `cbor:"2,keyasint,omitempty"`
	Local   bool     `cbor:"3,keyasint,omitempty"`
	ID      ID       `cbor:"4,keyasint,omitempty"`
	Result  *Result  `cbor:"5,keyasint,omitempty"`
	Actor   string   `cbor:"6,keyasint,omitempty"`
	Seq     uint64   `cbor:"7,keyasint,omitempty"`
}

// Validate says what is missing of what the line needs.
func (ln *line) Validate() error {
	switch {
	case ln.Op == opAccept && ln.Command == nil, ln.Op == opEnd && ln.Result == nil, (ln.Op == opBegin || ln.Op == opTold) && ln.ID == (ID{}),
		ln.Op == 0, ln.Op > opActor:
		return fmt.Errorf("a line of kind %d without what it is about", ln.Op)
	case ln.Command != nil:
		return ln.Command.Validate()
	case ln.Result != nil:
		return ln.Result.Validate()
	}
	return nil
}

// item is one command that is remembered.
type item struct {
	Command
	local  bool // of the board itself
	begun  bool
	again  bool // begun in an earlier life of the program
	result Result
}

// ledger is the state of all commands, and the journal under it. The dispatcher's loop
// alone touches it.
type ledger struct {
	log     Log
	items   map[ID]*item
	waiting []*item           // accepted and not ended, in order
	ended   []*item           // in order
	untold  []*item           // of the ended ones, in the order in which they are told
	highest map[string]uint64 // by actor
	unsaved []line            // that the disk did not take; tried again
}

// newLedger replays a journal's entries.
func newLedger(log Log, entries [][]byte) (*ledger, error) {
	l := &ledger{log: log, items: map[ID]*item{}, highest: map[string]uint64{}}
	for i, e := range entries {
		var ln line
		if err := schema.Decode(e, &ln); err != nil {
			return nil, fmt.Errorf("commands: entry %d of the journal: %w", i, err)
		}
		l.apply(ln)
	}
	for _, it := range l.items {
		it.again = it.begun
	}
	return l, nil
}

// apply takes one line into memory. Lines about commands that are not known any more
// change nothing.
func (l *ledger) apply(ln line) {
	switch ln.Op {
	case opAccept:
		c := *ln.Command
		if l.items[c.ID] != nil {
			return // only a damaged journal says it twice
		}
		it := &item{Command: c, local: ln.Local, result: Result{V: schema.Version, ID: c.ID, State: Accepted}}
		l.items[c.ID], l.waiting = it, append(l.waiting, it)
		l.highest[c.Actor] = max(l.highest[c.Actor], c.Seq)
	case opBegin:
		if it := l.items[ln.ID]; it != nil {
			it.begun = true
		}
	case opEnd:
		it := l.items[ln.Result.ID]
		if it == nil {
			it = &item{Command: Command{ID: ln.Result.ID, Actor: ln.Actor, Seq: ln.Seq}}
			l.items[it.ID] = it
			l.highest[ln.Actor] = max(l.highest[ln.Actor], ln.Seq)
		}
		if it.result.State.Final() {
			return
		}
		it.result, it.Args = *ln.Result, nil
		l.waiting = slices.DeleteFunc(l.waiting, func(w *item) bool { return w == it })
		l.ended, l.untold = append(l.ended, it), append(l.untold, it)
	case opTold:
		if it := l.items[ln.ID]; it != nil {
			l.untold = slices.DeleteFunc(l.untold, func(u *item) bool { return u == it })
		}
	case opActor:
		l.highest[ln.Actor] = max(l.highest[ln.Actor], ln.Seq)
	}
}

// write makes lines durable, then applies them. With must, they are applied though the
// disk does not take them, and tried again.
func (l *ledger) write(must bool, lines ...line) error {
	all := append(slices.Clone(l.unsaved), lines...)
	if len(all) == 0 {
		return nil
	}
	err := l.save(all)
	if err == nil {
		l.unsaved = nil
	} else if must {
		l.unsaved = all[max(0, len(all)-maxUntold):]
	} else {
		return err
	}
	for _, ln := range lines {
		l.apply(ln)
	}
	return err
}

// later applies a line that is written down with the next one: if it is lost, something
// is told twice.
func (l *ledger) later(ln line) {
	l.apply(ln)
	if l.unsaved = append(l.unsaved, ln); len(l.unsaved) > maxUntold {
		l.unsaved = l.unsaved[1:]
	}
}

func (l *ledger) save(lines []line) error {
	entries := make([][]byte, len(lines))
	for i := range lines {
		b, err := schema.Encode(&lines[i])
		if err != nil {
			return err
		}
		entries[i] = b
	}
	if l.log.Size() > compactAt {
		if err := l.compact(); err != nil {
			return err
		}
	}
	err := l.log.Append(entries...)
	if errors.Is(err, journal.ErrFull) {
		if err = l.compact(); err == nil {
			err = l.log.Append(entries...)
		}
	}
	return err
}

// compact writes the journal anew: what is not ended, the newest results, and the
// highest number of each actor.
func (l *ledger) compact() error {
	l.forget()
	var lines []line
	for _, a := range slices.Sorted(maps.Keys(l.highest)) {
		lines = append(lines, line{Op: opActor, Actor: a, Seq: l.highest[a]})
	}
	for _, it := range l.ended {
		r := it.result
		lines = append(lines, line{Op: opEnd, Result: &r, Actor: it.Actor, Seq: it.Seq})
		if !slices.Contains(l.untold, it) {
			lines = append(lines, line{Op: opTold, ID: it.ID})
		}
	}
	for _, it := range l.waiting {
		c := it.Command
		lines = append(lines, line{Op: opAccept, Command: &c, Local: it.local})
		if it.begun {
			lines = append(lines, line{Op: opBegin, ID: it.ID})
		}
	}
	entries := make([][]byte, len(lines))
	for i := range lines {
		b, err := schema.Encode(&lines[i])
		if err != nil {
			return err
		}
		entries[i] = b
	}
	return l.log.Rewrite(entries)
}

// forget lets the oldest results go that were told.
func (l *ledger) forget() {
	for len(l.ended) > maxEnded && !slices.Contains(l.untold, l.ended[0]) {
		delete(l.items, l.ended[0].ID)
		l.ended = l.ended[1:]
	}
}

// again has a result told once more.
func (l *ledger) again(it *item) {
	if it.result.State.Final() && !slices.Contains(l.untold, it) {
		l.untold = append(l.untold, it)
	}
}
