// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"fulmar/command"
	"fulmar/schema"
	"fulmar/storage/journal"
)

// Bounds of what is remembered.
const (
	// maxQueue is how many accepted commands wait to be begun. Who gives more than a
	// minute's work at once wants to hear of it. Those of the safety class have a bound of
	// their own, maxSafety: one is enough, the others are people and rules that want to be
	// sure.
	maxQueue  = 64
	maxSafety = 16
	// maxEnded and maxKept are how many results are kept to be told again, the newest, and
	// how many bytes of them.
	maxEnded = 256
	maxKept  = 512 << 10
	// maxActors is how many signed actors may give commands to one board, the fleet beside
	// them; and how many of the board's own are numbered before the one that was silent
	// for longest is forgotten.
	maxActors = 64
	// compactAt is by how much the journal grows before what is over goes out of it.
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
	opAccept op = 1 // Command, Given
	opBegin  op = 2 // ID, Begun
	opEnd    op = 3 // Result; and of a command that was never accepted Command and Given
	opTold   op = 4 // ID, of a command or a gap
	opActor  op = 5 // Actor, Seq: the highest number that came; Local without an Actor: of those forgotten
	opDrop   op = 6 // ID: its result will not be told, the newest gap counts it
	opTry    op = 7 // ID of a gap that may have been told from now on: it counts no more
	opGap    op = 8 // Gap
)

// line is one entry of the journal.
type line struct {
	Op      op               `cbor:"1,keyasint"`
	Command *command.Command `cbor:"2,keyasint,omitempty"`
	Local   bool             `cbor:"3,keyasint,omitempty"`
	ID      command.ID       `cbor:"4,keyasint,omitempty"`
	Result  *command.Result  `cbor:"5,keyasint,omitempty"`
	Actor   string           `cbor:"6,keyasint,omitempty"`
	Seq     uint64           `cbor:"7,keyasint,omitempty"`
	Given   schema.Time      `cbor:"8,keyasint,omitempty"`
	Begun   schema.Time      `cbor:"9,keyasint,omitempty"`
	Gap     *gap             `cbor:"10,keyasint,omitempty"`
}

// Validate says what is missing of what the line needs.
func (ln *line) Validate() error {
	switch {
	case ln.Op == opAccept && ln.Command == nil, ln.Op == opEnd && ln.Result == nil, ln.Op == opGap && ln.Gap == nil,
		(ln.Op == opBegin || ln.Op == opTold || ln.Op == opDrop || ln.Op == opTry) && ln.ID == (command.ID{}), ln.Op == 0, ln.Op > opGap:
		return fmt.Errorf("a line of kind %d without what it is about", ln.Op)
	case ln.Command != nil && ln.Result != nil:
		return errors.Join(ln.Command.Validate(), ln.Result.Validate())
	case ln.Command != nil:
		return ln.Command.Validate()
	case ln.Result != nil:
		return ln.Result.Validate()
	}
	return nil
}

// item is one command that is remembered.
type item struct {
	command.Command
	local  bool // of the board itself
	safety bool // dropped last
	begun  bool
	again  bool // begun in an earlier life of the program
	told   bool
	given  schema.Time
	start  schema.Time
	result command.Result
}

// bytes is about what an item costs in memory and in the journal.
func (it *item) bytes() int {
	return 200 + len(it.Name) + len(it.Actor) + len(it.By) + len(it.Reason) + len(it.Args) + len(it.result.Text) + len(it.result.Value)
}

// report is what is told of it.
func (it *item) report() command.Report {
	r := command.Report{V: schema.Version, Result: it.result, Given: it.given, Begun: it.start}
	if it.local {
		c := it.Command
		r.Command = &c
	}
	return r
}

// actor is one of the board's own. Its numbers are given here, so none comes twice.
type actor struct {
	high, used uint64
}

// ledger is the state of all commands, and the journal under it. The dispatcher's loop
// alone touches it.
type ledger struct {
	log     Log
	safety  func(name string) bool
	most    int // results that wait: maxUntold, but in tests
	items   map[command.ID]*item
	waiting []*item           // accepted and not ended, in order
	ended   []*item           // in order
	untold  []*item           // of the ended ones, in the order in which they are told
	gaps    []*gap            // told after them; at most two
	telling command.ID        // which is on its way: it is not dropped
	highest map[string]uint64 // by signed actor
	local   map[string]*actor // of the board itself
	base    uint64            // no number of a forgotten one is above it
	uses    uint64            // of local actors
	unsaved []line            // that the disk did not take; tried again
	size    int64             // of the journal after it was last written anew
	strange int               // lines that this release cannot read
}

// newLedger replays a journal's entries. What it cannot read, as a newer release may have
// written it, is left out and counted: a board that takes no commands any more is worse.
func newLedger(log Log, entries [][]byte, most int, safety func(string) bool) *ledger {
	l := &ledger{log: log, safety: safety, most: most, items: map[command.ID]*item{}, highest: map[string]uint64{}, local: map[string]*actor{}}
	for _, e := range entries {
		var ln line
		if err := schema.Decode(e, &ln); err != nil {
			l.strange++
			continue
		}
		l.apply(ln)
	}
	for _, it := range l.items {
		it.again = it.begun
	}
	return l
}

// apply takes one line into memory. Lines about commands that are not known any more
// change nothing.
func (l *ledger) apply(ln line) {
	switch ln.Op {
	case opAccept:
		if l.items[ln.Command.ID] == nil { // only a damaged journal says it twice
			l.waiting = append(l.waiting, l.add(ln, command.Result{V: schema.Version, ID: ln.Command.ID, State: command.Accepted}))
		}
	case opBegin:
		if it := l.items[ln.ID]; it != nil {
			it.begun, it.start = true, ln.Begun
		}
	case opEnd:
		l.end(ln)
	case opTold:
		if len(l.gaps) > 0 && l.gaps[0].ID == ln.ID {
			l.gaps = l.gaps[1:]
		} else if it := l.items[ln.ID]; it != nil {
			it.told = true
			l.untold = slices.DeleteFunc(l.untold, func(u *item) bool { return u == it })
		}
	case opActor:
		if !ln.Local {
			l.highest[ln.Actor] = max(l.highest[ln.Actor], ln.Seq)
		} else if ln.Actor != "" {
			l.number(ln.Actor, ln.Seq)
		} else {
			l.base = max(l.base, ln.Seq)
		}
	case opDrop, opTry, opGap:
		l.applyGap(ln)
	}
}

// add remembers the command of a line, and its number.
func (l *ledger) add(ln line, r command.Result) *item {
	it := &item{Command: *ln.Command, local: ln.Local, safety: l.safety(ln.Command.Name), given: ln.Given, start: ln.Begun, result: r}
	l.items[it.ID] = it
	if it.local {
		l.number(it.Actor, it.Seq)
	} else {
		l.highest[it.Actor] = max(l.highest[it.Actor], it.Seq)
	}
	return it
}

func (l *ledger) end(ln line) {
	it := l.items[ln.Result.ID]
	switch {
	case it == nil && ln.Command != nil && ln.Command.ID == ln.Result.ID:
		it = l.add(ln, command.Result{})
	case it == nil || it.result.State.Final():
		return
	}
	if it.result = *ln.Result; !it.local { // the fleet knows what it gave
		it.Args = nil
	}
	l.waiting = slices.DeleteFunc(l.waiting, func(w *item) bool { return w == it })
	l.ended, l.untold = append(l.ended, it), append(l.untold, it)
}

// number notes the newest number of an actor of the board's own.
func (l *ledger) number(name string, seq uint64) {
	a := l.local[name]
	if a == nil {
		a = &actor{}
		l.local[name] = a
	}
	l.uses++
	a.high, a.used = max(a.high, seq), l.uses
	if len(l.local) > maxActors {
		silent := ""
		for n, a := range l.local {
			if silent == "" || a.used < l.local[silent].used {
				silent = n
			}
		}
		l.base = max(l.base, l.local[silent].high)
		delete(l.local, silent)
	}
}

// next is the number that the next command of one of the board's own actors gets.
func (l *ledger) next(name string) uint64 {
	if a := l.local[name]; a != nil {
		return a.high + 1
	}
	return l.base + 1
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
	l.drop()
	l.forget()
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
	entries, err := encode(lines)
	if err != nil {
		return err
	}
	if l.log.Size() > l.size+compactAt {
		if err := l.compact(); err != nil {
			return err
		}
	}
	err = l.log.Append(entries...)
	if errors.Is(err, journal.ErrFull) || errors.Is(err, journal.ErrBroken) { // what is in memory is all of it
		if err = l.compact(); err == nil {
			err = l.log.Append(entries...)
		}
	}
	return err
}

func encode(lines []line) ([][]byte, error) {
	entries := make([][]byte, len(lines))
	for i := range lines {
		b, err := schema.Encode(&lines[i])
		if err != nil {
			return nil, err
		}
		entries[i] = b
	}
	return entries, nil
}

// compact writes the journal anew: what is not ended, the newest results, what will not
// be told, and the highest number of each actor.
func (l *ledger) compact() error {
	l.forget()
	lines := []line{{Op: opActor, Local: true, Seq: l.base}}
	for _, a := range slices.Sorted(maps.Keys(l.highest)) {
		lines = append(lines, line{Op: opActor, Actor: a, Seq: l.highest[a]})
	}
	for _, a := range slices.SortedFunc(maps.Keys(l.local), func(a, b string) int { return int(l.local[a].used) - int(l.local[b].used) }) {
		lines = append(lines, line{Op: opActor, Actor: a, Seq: l.local[a].high, Local: true})
	}
	for _, g := range l.gaps {
		lines = append(lines, line{Op: opGap, Gap: g})
	}
	for _, it := range l.ended {
		r, c := it.result, it.Command
		lines = append(lines, line{Op: opEnd, Result: &r, Command: &c, Local: it.local, Given: it.given, Begun: it.start})
		if it.told {
			lines = append(lines, line{Op: opTold, ID: it.ID})
		}
	}
	for _, it := range l.waiting {
		c := it.Command
		lines = append(lines, line{Op: opAccept, Command: &c, Local: it.local, Given: it.given})
		if it.begun {
			lines = append(lines, line{Op: opBegin, ID: it.ID, Begun: it.start})
		}
	}
	entries, err := encode(lines)
	if err == nil {
		err = l.log.Rewrite(entries)
	}
	if err == nil {
		l.size = l.log.Size()
	}
	return err
}

// forget lets the oldest results go that were told.
func (l *ledger) forget() {
	n, bytes := 0, 0
	for _, it := range l.ended {
		if it.told {
			n, bytes = n+1, bytes+it.bytes()
		}
	}
	if n <= maxEnded && bytes <= maxKept {
		return
	}
	l.ended = slices.DeleteFunc(l.ended, func(it *item) bool {
		if !it.told || n <= maxEnded && bytes <= maxKept {
			return false
		}
		n, bytes = n-1, bytes-it.bytes()
		delete(l.items, it.ID)
		return true
	})
}

// again has a result told once more.
func (l *ledger) again(it *item) {
	if it.result.State.Final() && it.told {
		it.told = false
		l.untold = append(l.untold, it)
	}
}

// newest gives the newest n commands, with what was given; those not ended are last.
func (l *ledger) newest(n int) []command.Report {
	all := append(slices.Clone(l.ended), l.waiting...)
	all = all[max(0, len(all)-n):]
	out := make([]command.Report, len(all))
	for i, it := range all {
		c := it.Command
		out[i] = it.report()
		if out[i].Command = &c; it.begun && !it.result.State.Final() {
			out[i].Result.State = command.Running
		}
	}
	return out
}
