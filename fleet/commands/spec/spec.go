// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package spec reads a command as a person gives it, and refuses what no board would take.
package spec

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/command"
	"fulmar/fleet/commands/form"
	"fulmar/schema"
	"fulmar/schema/rest"
)

const (
	// DefaultValid is for how long a board may begin a command where nothing is said: a
	// person who gives one waits for it.
	DefaultValid = 5 * time.Minute
	// MaxValid is the most. What was right a week ago is not what anybody wants now.
	MaxValid = 7 * 24 * time.Hour
	maxQuery = 1024 // bytes
	// NameCancel is the command with which a board is asked to cancel another.
	NameCancel = "cancel"
)

// Error is about one field of what was given.
type Error struct {
	Pointer string // into the CommandSpec: /args/value
	Detail  string
}

// Error implements error.
func (e *Error) Error() string { return e.Pointer + ": " + e.Detail }

// Is makes all of them one class.
func (e *Error) Is(target error) bool {
	_, ok := target.(*Error) //nolint:errorlint // asked of this one
	return ok
}

// Field is one argument of a command.
type Field struct {
	Name, Type string // "text", "number", "integer", "bool", ""; "" is anything
	Required   bool
}

var nameForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`) })

// maxApprove bounds the names that want a second person.
const maxApprove = 100

// Rules is what the config of a server says of commands.
type Rules struct {
	// Approve lists the names of commands that a second person has to agree to.
	Approve []string `yaml:"approve"`
}

// Validate names the key that is wrong, and what would be right.
func (r *Rules) Validate() error {
	if len(r.Approve) > maxApprove {
		return fmt.Errorf("approve: %d names, at most %d", len(r.Approve), maxApprove)
	}
	for _, n := range r.Approve {
		if !nameForm().MatchString(n) {
			return fmt.Errorf("approve: %.70q is no name of a command: a letter, then up to 63 of a-z 0-9 -", n)
		}
	}
	return nil
}

// Read checks what was given, and gives the arguments as a board reads them and for how
// long it may begin. fields are what the command takes; nil: that is not known.
func Read(s rest.CommandSpec, fields []Field) (args []byte, valid time.Duration, err error) {
	valid = cmp.Or(time.Duration(s.ValidS)*time.Second, DefaultValid)
	switch {
	case !nameForm().MatchString(s.Name):
		err = &Error{"/name", "wants the name of a command: a letter, then up to 63 of a-z 0-9 -"}
	case s.Name == NameCancel:
		err = &Error{"/name", "cancel is done to a command that was given"}
	case s.ValidS < 0 || s.ValidS > int64(MaxValid/time.Second):
		err = &Error{"/valid_s", fmt.Sprintf("takes 1 to %d, which is 7 days; 0 is %d", int64(MaxValid/time.Second), int64(DefaultValid/time.Second))}
	case len(s.Reason) > schema.MaxFact:
		err = &Error{"/reason", fmt.Sprintf("takes at most %d bytes", schema.MaxFact)}
	case len(s.Query) > maxQuery:
		err = &Error{"/query", fmt.Sprintf("takes at most %d bytes", maxQuery)}
	case (len(s.Boards) == 0) == (s.Query == ""):
		err = &Error{"/boards", "wants boards, or query, and not both"}
	default:
		if args, err = form.Encode(s.Args, command.MaxArgs); err != nil {
			return nil, 0, &Error{"/args", err.Error()}
		}
		err = checkFields(s.Args, fields)
	}
	return args, valid, err
}

// checkFields holds arguments to what a command takes; nil fields: that is not known.
func checkFields(text json.RawMessage, fields []Field) error {
	if fields == nil {
		return nil
	}
	have := map[string]json.RawMessage{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &have); err != nil {
			return &Error{"/args", "wants a JSON object"}
		}
	}
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
		v, given := have[f.Name]
		if !given && f.Required {
			return &Error{"/args/" + f.Name, "is missing"}
		}
		if given && !fits(v, f.Type) {
			return &Error{"/args/" + f.Name, "wants a value of kind " + f.Type}
		}
	}
	for name := range have {
		if !slices.Contains(names, name) {
			return &Error{"/args", fmt.Sprintf("has a name that the command does not take; it takes %s", strings.Join(names, ", "))}
		}
	}
	return nil
}

func fits(v json.RawMessage, kind string) bool {
	switch kind {
	case "text":
		return json.Unmarshal(v, new(string)) == nil
	case "number":
		return json.Unmarshal(v, new(float64)) == nil
	case "integer":
		return json.Unmarshal(v, new(int64)) == nil
	case "bool":
		return json.Unmarshal(v, new(bool)) == nil
	}
	return true
}

// Plan tells in a sentence what would be given: to so many boards, of which some lack the
// command, have not told whether they have it, or are away.
func Plan(name string, n int, valid time.Duration, wants bool, lack, silent, away []string) string {
	say := fmt.Sprintf("%s would get %s, to be begun within %v.", Count(n), name, valid)
	if wants {
		say = fmt.Sprintf("%s would get %s once a second person agrees, to be begun within %v of that.", Count(n), name, valid)
	}
	for _, x := range []struct {
		list []string
		what string
	}{{lack, "would refuse it, they have no such command"}, {silent, "have not told which commands they have"}, {away, "are not connected and get it when they are"}} {
		if len(x.list) > 0 {
			say += fmt.Sprintf(" %d %s: %s.", len(x.list), x.what, some(x.list))
		}
	}
	return say
}

// Count is a number of boards in words.
func Count(n int) string {
	if n == 1 {
		return "1 board"
	}
	return fmt.Sprintf("%d boards", n)
}

// some names the first few of a list.
func some(list []string) string {
	const few = 5
	if len(list) <= few {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:few], ", ") + " and others"
}
