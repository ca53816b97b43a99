// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"fulmar/command"
	"fulmar/schema"
)

const (
	// maxUntold and maxUntoldBytes are how many results may wait for the fleet. A rule that
	// acts each second fills them in a partition of 17 minutes.
	maxUntold      = 1024
	maxUntoldBytes = 1 << 20
	// maxGapActors is of how many actors a gap keeps a count of its own; the others are one.
	maxGapActors = 16
)

// gap counts results that will not be told.
type gap struct {
	ID command.ID `cbor:"1,keyasint"`
	// Tried says that it may have been told already: it may not grow any more.
	Tried  bool              `cbor:"2,keyasint,omitempty"`
	Count  uint64            `cbor:"3,keyasint"`
	First  schema.Time       `cbor:"4,keyasint"` // when the first and the last of them was ended
	Last   schema.Time       `cbor:"5,keyasint"`
	States map[string]uint64 `cbor:"6,keyasint"`
	Actors map[string]uint64 `cbor:"7,keyasint"`
}

// report tells of it as of a command that the board gave itself.
func (g *gap) report() (command.Report, error) {
	v, err := schema.Encode(&command.GapValue{Count: g.Count, States: g.States, Actors: g.Actors})
	if err != nil {
		return command.Report{}, err
	}
	var how []string
	for _, s := range slices.Sorted(maps.Keys(g.States)) {
		how = append(how, fmt.Sprintf("%d %s", g.States[s], s))
	}
	text := fmt.Sprintf("%d results of commands (%s) were dropped before the fleet could be told: too many waited", g.Count, strings.Join(how, ", "))
	return command.Report{
		V: schema.Version, Given: g.First, Begun: g.First,
		Command: &command.Command{V: schema.Version, ID: g.ID, Name: command.NameGap, Actor: command.ActorBoard, Seq: g.Count},
		Result:  command.Result{V: schema.Version, ID: g.ID, State: command.Done, Time: g.Last, Text: clip(text), Value: v},
	}, nil
}

// drop keeps the results that wait for the fleet within their bounds: the oldest of the
// least worth are counted instead. It never costs a command: the board goes on.
func (l *ledger) drop() {
	bytes := 0
	for _, it := range l.untold {
		bytes += it.bytes()
	}
	for len(l.untold) > l.most || bytes > maxUntoldBytes {
		var victim *item
		for _, it := range l.untold {
			if it.ID != l.telling && (victim == nil || it.worth() < victim.worth()) {
				victim = it
			}
		}
		if victim == nil {
			return
		}
		bytes -= victim.bytes()
		l.later(line{Op: opDrop, ID: victim.ID})
	}
}

// worth says which results go last: those that the fleet asked for, and before them those
// of safety, and before them what did not go as it should. What was refused goes first: it
// moved nothing, who gave it was told, and of a flood it is the most.
func (it *item) worth() int {
	switch {
	case !it.local:
		return 3
	case it.safety:
		return 2
	case it.result.State == command.Refused:
		return -1
	case it.result.State != command.Done:
		return 1
	}
	return 0
}

// owed is how many results of the fleet's own commands wait to be told.
func (l *ledger) owed() (n int) {
	for _, it := range l.untold {
		if !it.local {
			n++
		}
	}
	return n
}

func (l *ledger) applyGap(ln line) {
	switch ln.Op {
	case opGap:
		l.gaps = append(l.gaps, ln.Gap)
	case opTry:
		for _, g := range l.gaps {
			g.Tried = g.Tried || g.ID == ln.ID
		}
	case opDrop:
		it := l.items[ln.ID]
		if it == nil || !it.result.State.Final() {
			return
		}
		it.told = true // here it is remembered as long as any
		l.untold = slices.DeleteFunc(l.untold, func(o *item) bool { return o == it })
		n := len(l.gaps)
		if n == 0 || l.gaps[n-1].Tried {
			sum := sha256.Sum256(append([]byte(command.NameGap), it.ID[:]...))
			g := &gap{First: it.result.Time, States: map[string]uint64{}, Actors: map[string]uint64{}}
			copy(g.ID[:], sum[:])
			l.gaps, n = append(l.gaps, g), n+1
		}
		l.gaps[n-1].count(it)
	}
}

func (g *gap) count(it *item) {
	if g.States == nil || g.Actors == nil { // of a damaged journal
		g.States, g.Actors = map[string]uint64{}, map[string]uint64{}
	}
	g.Count++
	g.Last = it.result.Time
	g.States[it.result.State.String()]++
	who := it.Actor
	if g.Actors[who] == 0 && len(g.Actors) >= maxGapActors {
		who = "others"
	}
	g.Actors[who]++
}

// nextReport is what is told next, if anything waits: results first. What was dropped goes
// on counting meanwhile, so that a flood ends in one gap and not in one for each report:
// one that is told may not grow any more.
func (l *ledger) nextReport() (r command.Report, ok bool) {
	for len(l.untold) == 0 && len(l.gaps) > 0 {
		g := l.gaps[0]
		if !g.Tried {
			// On the disk before it is told: else it counts on after a crash under its old name.
			_ = l.write(true, line{Op: opTry, ID: g.ID})
		}
		r, err := g.report()
		if err == nil {
			return r, true
		}
		l.gaps = l.gaps[1:] // of a damaged journal: it could never be told
	}
	if len(l.untold) == 0 {
		return command.Report{}, false
	}
	return l.untold[0].report(), true
}
