// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"fulmar/command"
)

// State is how far a board is on its own.
type State string

// The states.
const (
	Connected State = "connected"
	Alone     State = "alone"
	Over      State = "over" // a lease is over, and its outputs are on the way to safe
	Safe      State = "safe" // they are
)

// Status tells all of it.
type Status struct {
	State State
	// DownFor is how long the fleet could not be asked, Alone how long the board counts as
	// alone; in time that it runs.
	DownFor, Alone time.Duration
	Leases         []Lease
	// Stays are the outputs that were put into their safe states, "all" after a safety
	// shutdown. They stay so, also when the fleet is back; the next time alone begins anew.
	Stays []string
	// Failing is why outputs are not safe yet; "" for nothing.
	Failing string
}

// Lease is an allowance at work.
type Lease struct {
	Name string
	Left time.Duration // 0 and not Over: it has no end
	Over bool
}

// machine is the logic, without a clock and not safe for concurrent use.
type machine struct {
	cfg   Config
	up    bool
	state State
	down  time.Duration // the fleet could not be asked
	alone time.Duration // counted as alone
	back  time.Duration // it can be asked again
	over  map[string]bool
	done  map[string]bool // what its lease names is safe
	stays []string
	times uint64 // how often it became alone: what was begun for one time is nothing for the next
}

func newMachine(cfg Config) *machine {
	return &machine{cfg: cfg, state: Connected, over: map[string]bool{}, done: map[string]bool{}}
}

// pass takes that a span has passed in which the fleet could be asked, or not.
func (m *machine) pass(span time.Duration, up bool) {
	m.up = up
	if up {
		m.back += span
		if m.state == Connected {
			m.down = 0
		} else if m.back >= m.cfg.Back {
			m.state, m.down, m.alone = Connected, 0, 0
			clear(m.over)
			clear(m.done)
		}
	} else {
		m.back = 0
		m.down += span
	}
	if m.state == Connected {
		if m.down < m.cfg.Grace {
			return
		}
		m.state, m.alone, m.stays = Alone, m.down-m.cfg.Grace, nil
		m.times++
		clear(m.over)
		clear(m.done)
	} else {
		m.alone += span
	}
	m.settle()
}

// settle says which leases are over, and how far the board is with them.
func (m *machine) settle() {
	m.state = Alone
	for i := range m.cfg.Allow {
		a := &m.cfg.Allow[i]
		if a.For == 0 || m.alone < a.For {
			continue
		}
		m.over[a.Name] = true
		switch {
		case len(a.Safe) == 0:
		case !m.done[a.Name]:
			m.state = Over
		case m.state == Alone:
			m.state = Safe
		}
	}
}

// owed gives the outputs that have to become safe now, in the order of the config; all of
// the board where all is set.
func (m *machine) owed() (outputs, names []string, all bool) {
	if m.state != Over {
		return nil, nil, false
	}
	for i := range m.cfg.Allow {
		a := &m.cfg.Allow[i]
		if !m.over[a.Name] || m.done[a.Name] || len(a.Safe) == 0 {
			continue
		}
		names = append(names, a.Name)
		if slices.Contains(a.Safe, SafeAll) {
			all = true
			continue
		}
		for _, o := range a.Safe {
			if !slices.Contains(outputs, o) {
				outputs = append(outputs, o)
			}
		}
	}
	return outputs, names, all
}

// paid takes that these leases of the times-th time alone have become safe. If the board
// is not alone any more, or again, only what it did counts: the outputs are where they are.
func (m *machine) paid(times uint64, outputs, names []string, all bool) {
	if times != m.times {
		return
	}
	if m.state != Connected {
		for _, n := range names {
			m.done[n] = true
		}
	}
	if all {
		outputs = []string{SafeAll}
	}
	for _, o := range outputs {
		if !slices.Contains(m.stays, o) {
			m.stays = append(m.stays, o)
		}
	}
	if m.state != Connected {
		m.settle()
	}
}

// Commands that are always allowed: nobody may be kept from what makes a board safe, or
// from stopping what goes on.
const (
	commandSafe   = "trigger-safety-shutdown"
	commandCancel = "cancel"
)

// CodeAlone is the code of a refusal: the board is alone, and the command is not among
// what is allowed then, or not any more.
const CodeAlone = "not-allowed-alone"

// allow says why an actor may not give a command now; nil if it may.
func (m *machine) allow(actor, name string) error {
	who := ""
	switch root, _, _ := strings.Cut(actor, "/"); root {
	case "rule":
		who = WhoRules
	case "local", "key":
		who = WhoPeople
	}
	if m.state == Connected || len(m.cfg.Allow) == 0 || who == "" || name == commandSafe || name == commandCancel {
		return nil
	}
	over := ""
	for i := range m.cfg.Allow {
		a := &m.cfg.Allow[i]
		if !a.names(who, name) {
			continue
		}
		if !m.over[a.Name] {
			return nil
		}
		over = fmt.Sprintf("%s was allowed to %s for %v while the fleet cannot be asked (autonomy.allow %s), and that is over", name, who, a.For, a.Name)
	}
	if over == "" {
		over = fmt.Sprintf("%s is not among what %s may do while the fleet cannot be asked (autonomy.allow)", name, who)
	}
	return &command.Error{Code: CodeAlone, Text: over}
}

func (m *machine) status() Status {
	s := Status{State: m.state, DownFor: m.down, Alone: m.alone, Stays: slices.Clone(m.stays)}
	if m.state == Connected {
		s.Alone = 0
		return s
	}
	for i := range m.cfg.Allow {
		a := &m.cfg.Allow[i]
		l := Lease{Name: a.Name, Over: m.over[a.Name]}
		if a.For > 0 && !l.Over {
			l.Left = a.For - m.alone
		}
		s.Leases = append(s.Leases, l)
	}
	return s
}
