// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"fulmar/device/rule/cond"
	"fulmar/schema"
)

// Program is a rule that was checked. It does not change.
type Program struct {
	Spec
	Cond, End     *cond.Expr // End is that of until, and may be nil
	Inputs        []cond.Input
	CondIn, EndIn []int // places in Inputs of what each expression reads
	// For, every, lease and stale as spans; 0 is none.
	HoldFor, EveryFor, LeaseFor, StaleFor time.Duration
	hash                                  [16]byte // of all that the rule says
}

// Hash tells two rules apart: equal ones say the same.
func (p *Program) Hash() [16]byte { return p.hash }

// Compile checks a rule. The error says which part of it is wrong, and where.
func Compile(s Spec) (*Program, error) {
	if err := checkName(s.Name); err != nil {
		return nil, fmt.Errorf("rule: %w", err)
	}
	p := &Program{Spec: s}
	if err := p.compile(); err != nil {
		return nil, fmt.Errorf("rule %s: %w", s.Name, err)
	}
	return p, nil
}

func (p *Program) compile() (err error) {
	for _, f := range []struct {
		word, text  string
		to          *time.Duration
		least, most time.Duration
	}{
		{"for", p.For, &p.HoldFor, 0, 24 * time.Hour},
		{"every", p.Every, &p.EveryFor, 0, 7 * 24 * time.Hour},
		{"lease", p.Lease, &p.LeaseFor, time.Second, 30 * 24 * time.Hour},
		{"stale", p.Stale, &p.StaleFor, time.Second, 24 * time.Hour},
	} {
		if f.text == "" {
			continue
		}
		d, err := time.ParseDuration(f.text)
		if err != nil || d < f.least || d > f.most {
			return fmt.Errorf("%s: %.40q is no span from %v to %v; write 500ms, 10s, 5m, 1h", f.word, f.text, f.least, f.most)
		}
		*f.to = d
	}
	if p.Cond, err = cond.Compile(p.When, inputKind); err != nil {
		return fmt.Errorf("when: %w", err)
	}
	p.CondIn = p.read(p.Cond)
	if p.Until != "" {
		if p.End, err = cond.Compile(p.Until, inputKind); err != nil {
			return fmt.Errorf("until: %w", err)
		}
		p.EndIn = p.read(p.End)
	}
	if len(p.Do) == 0 {
		return errors.New("do: it does nothing")
	}
	if p.Do, err = actions("do", p.Do); err != nil {
		return err
	}
	if p.Else, err = actions("else", p.Else); err != nil {
		return err
	}
	b, err := schema.Encode(&p.Spec)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	p.hash = [16]byte(sum[:])
	return nil
}

func actions(word string, in []Action) ([]Action, error) {
	if len(in) > maxActions {
		return nil, fmt.Errorf("%s: %d actions, at most %d", word, len(in), maxActions)
	}
	out := make([]Action, len(in))
	for i := range in {
		if err := in[i].check(); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", word, i, err)
		}
		out[i] = in[i].normal()
	}
	return out, nil
}

// read puts the inputs of an expression among those of the rule.
func (p *Program) read(e *cond.Expr) []int {
	at := make([]int, len(e.Inputs))
	for i, in := range e.Inputs {
		at[i] = slices.Index(p.Inputs, in)
		if at[i] < 0 {
			at[i] = len(p.Inputs)
			p.Inputs = append(p.Inputs, in)
		}
	}
	return at
}

// Names of inputs that are no readings.
const (
	InLinkUp     = "link.up"
	InDownFor    = "link.down_for"
	InSafety     = "safety.active"
	InHour       = "time.hour"
	InMinute     = "time.minute"
	InWeekday    = "time.weekday"
	PrefixOutput = "output."
	PrefixApp    = "app."
)

// inputKind is the table of what a condition may read.
func inputKind(name string) (cond.Kind, error) {
	switch name {
	case InLinkUp, InSafety:
		return cond.Bool, nil
	case InDownFor, InHour, InMinute, InWeekday:
		return cond.Number, nil
	}
	root, rest, ok := strings.Cut(name, ".")
	switch {
	case root == "link" || root == "time" || root == "safety":
		return 0, fmt.Errorf("there is no input %.70s; of its kind there are link.up, link.down_for (s), safety.active, time.hour, time.minute, time.weekday (Monday is 1)", name)
	case !ok || rest == "":
		return 0, fmt.Errorf("there is no input %.70s; a reading is named by its series, as thermal.cpu_celsius", name)
	}
	if err := schema.CheckName(name); err != nil {
		return 0, fmt.Errorf("no input can be named %.70s: %w", name, err)
	}
	if root == "app" {
		return cond.Any, nil
	}
	return cond.Number, nil
}
