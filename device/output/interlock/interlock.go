// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package interlock is the language in which an output says when it may not be set: NAME OP
// NUMBER, with "and" and "or". It is this small so that a person sees at a glance what it
// does, and nothing in it can fail, wait or loop.
package interlock

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"fulmar/schema"
)

// Bounds of an interlock: a person has to be able to read it.
const (
	maxWhen        = 256 // bytes
	maxComparisons = 16
	maxMessage     = 256 // bytes
	// DefaultAge is how old a reading may be where nothing is said: three ticks of the
	// group that most sensors are in.
	DefaultAge = 30 * time.Second
	maxAge     = time.Hour
)

// Values tells the newest value of a reading and how old it is; ok is false where there
// is none, or where it is not good. It does not wait. Safe for concurrent use.
type Values interface {
	Value(name string) (v float64, age time.Duration, ok bool)
}

// Config refuses sets while a condition holds.
type Config struct {
	// When is NAME OP NUMBER, several of them with "and" and "or" between ("and" binds
	// closer; there are no brackets). OP is one of < <= > >= == !=. NAME is a reading
	// (temp.tj), output.NAME, or safety (1 while a safety shutdown is latched).
	When string `yaml:"when"`
	// MaxAge is how old a reading may be, 0 is 30 s. What is older is not known.
	MaxAge time.Duration `yaml:"max_age"`
	// Message tells a person why; "" is the condition itself.
	Message string `yaml:"message"`
}

// Condition is a parsed When: terms of which one has to hold, of comparisons that all
// have to hold.
type Condition struct {
	terms [][]comparison
}

type comparison struct {
	name string
	op   string
	than float64
}

// Parse reads the language of [Config].
func Parse(s string) (*Condition, error) {
	if len(s) > maxWhen {
		return nil, fmt.Errorf("is %d bytes long, at most %d", len(s), maxWhen)
	}
	words, c, n := split(s), &Condition{terms: [][]comparison{nil}}, 0
	for len(words) > 0 {
		if len(words) < 3 {
			return nil, fmt.Errorf("ends after %q, wants NAME OP NUMBER", strings.Join(words, " "))
		}
		cmp, err := parseComparison(words[0], words[1], words[2])
		if err != nil {
			return nil, err
		}
		if n++; n > maxComparisons {
			return nil, fmt.Errorf("has over %d comparisons", maxComparisons)
		}
		last := len(c.terms) - 1
		c.terms[last] = append(c.terms[last], cmp)
		words = words[3:]
		if len(words) == 0 {
			return c, nil
		}
		switch words[0] {
		case "and":
		case "or":
			c.terms = append(c.terms, nil)
		default:
			return nil, fmt.Errorf("has %q where \"and\" or \"or\" belongs", words[0])
		}
		words = words[1:]
	}
	return nil, errors.New("is empty or ends in \"and\" or \"or\", wants NAME OP NUMBER")
}

func parseComparison(name, op, number string) (comparison, error) {
	if err := schema.CheckName(name); err != nil {
		return comparison{}, err
	}
	switch op {
	case "<", "<=", ">", ">=", "==", "!=":
	default:
		return comparison{}, fmt.Errorf("has %q after %s, wants < <= > >= == or !=", op, name)
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return comparison{}, fmt.Errorf("compares %s with %q, which is no number", name, number)
	}
	return comparison{name, op, v}, nil
}

// split cuts at blanks and around the signs of comparison.
func split(s string) []string {
	var b strings.Builder
	for i := range len(s) {
		sign := strings.IndexByte("<>=!", s[i]) >= 0
		if before := i > 0 && strings.IndexByte("<>=!", s[i-1]) >= 0; i > 0 && sign != before {
			b.WriteByte(' ')
		}
		b.WriteByte(s[i])
	}
	return strings.Fields(b.String())
}

// Names are those that it looks at.
func (c *Condition) Names() []string {
	var out []string
	for _, t := range c.terms {
		for _, cmp := range t {
			out = append(out, cmp.name)
		}
	}
	return out
}

// Holds tells whether it holds; unknown names the first value that is not known, and then
// nobody can tell. All names are asked for, so that it does not depend on what the others
// are whether a dead sensor is noticed.
func (c *Condition) Holds(value func(name string) (float64, bool)) (holds bool, unknown string) {
	for _, t := range c.terms {
		all := true
		for _, cmp := range t {
			v, ok := value(cmp.name)
			if !ok || math.IsNaN(v) {
				return false, cmp.name
			}
			all = all && cmp.true(v)
		}
		holds = holds || all
	}
	return holds, ""
}

func (c *comparison) true(v float64) bool {
	switch c.op {
	case "<":
		return v < c.than
	case "<=":
		return v <= c.than
	case ">":
		return v > c.than
	case ">=":
		return v >= c.than
	case "==":
		return v == c.than
	}
	return v != c.than
}

// Validate checks the form. What is named is for others to check.
func (c *Config) Validate() (*Condition, error) {
	when, err := Parse(c.When)
	switch {
	case err != nil:
		return nil, fmt.Errorf("when: %.80q %w", c.When, err)
	case c.MaxAge < 0 || c.MaxAge > maxAge:
		return nil, fmt.Errorf("max_age: %v, wants 0s (%v) to %v", c.MaxAge, DefaultAge, maxAge)
	case len(c.Message) > maxMessage:
		return nil, fmt.Errorf("message: is %d bytes long, at most %d", len(c.Message), maxMessage)
	}
	return when, nil
}
