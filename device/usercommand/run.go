// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package usercommand

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"fulmar/device/child"
)

// defaultLen is how long a text may be where its field does not say.
const defaultLen = 64

// Command is one command of the user's. Safe for concurrent use.
type Command struct {
	Manifest
	program string // without links
	self    string
}

// Call is one call of it. Args are the decoded arguments: texts, bools, numbers of any
// Go type.
type Call struct {
	ID    string
	Actor string
	Again bool
	Args  map[string]any
}

// Check refuses arguments that the manifest does not name, or not so.
func (c *Command) Check(args map[string]any) error {
	_, err := c.clean(args)
	return err
}

// clean gives the arguments as the program gets them.
func (c *Command) clean(args map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for _, f := range c.Args {
		v, ok := args[f.Name]
		if !ok {
			if f.Required {
				return nil, fmt.Errorf("%s: %s is missing", c.Name, f.Name)
			}
			continue
		}
		var err error
		if out[f.Name], err = f.clean(v); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", c.Name, f.Name, err)
		}
	}
	for name := range args {
		if !slices.ContainsFunc(c.Args, func(f Field) bool { return f.Name == name }) {
			return nil, fmt.Errorf("%s: takes no argument %.40q", c.Name, name)
		}
	}
	return out, nil
}

func (f *Field) clean(v any) (any, error) {
	switch f.Type {
	case Bool:
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, fmt.Errorf("%v is not true or false", v)
	case Text:
		s, ok := v.(string)
		most := f.MaxLen
		if most == 0 {
			most = defaultLen
		}
		switch {
		case !ok:
			return nil, fmt.Errorf("%v is no text", v)
		case len(f.OneOf) > 0 && !slices.Contains(f.OneOf, s):
			return nil, fmt.Errorf("%.40q, wants one of %q", s, f.OneOf)
		case len(f.OneOf) == 0 && len(s) > most:
			return nil, fmt.Errorf("is %d bytes long, at most %d", len(s), most)
		}
		return s, nil
	}
	n, ok := number(v)
	switch {
	case !ok:
		return nil, fmt.Errorf("%v is no number", v)
	case !(n >= *f.Min && n <= *f.Max):
		return nil, fmt.Errorf("%v is not within %v and %v", v, *f.Min, *f.Max)
	case f.Type == Integer && n != math.Trunc(n):
		return nil, fmt.Errorf("%v is no whole number", v)
	case f.Type == Integer:
		return int64(n), nil
	}
	return n, nil
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case float32:
		return float64(n), true
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	}
	return 0, false
}

// question is what the program gets.
type question struct {
	Ask     string         `json:"ask"`
	Command string         `json:"command"`
	ID      string         `json:"id"`
	Actor   string         `json:"actor"`
	Again   bool           `json:"again"`
	Args    map[string]any `json:"args"`
}

// Do runs the program and gives what it answers.
func (c *Command) Do(ctx context.Context, call Call) (map[string]any, error) {
	out, err := c.ask(ctx, "do", call)
	if err != nil {
		return nil, err
	}
	return c.object(out)
}

// ErrNotAsked: the manifest does not say that the program can tell.
var ErrNotAsked = errors.New("this command cannot tell whether it happened")

// WhetherHappened asks the program whether the effect of a call is there that was begun
// when the board died, and what it would have answered.
func (c *Command) WhetherHappened(ctx context.Context, call Call) (bool, map[string]any, error) {
	if !c.Happened {
		return false, nil, fmt.Errorf("%s: %w", c.Name, ErrNotAsked)
	}
	out, err := c.ask(ctx, "happened", call)
	if err != nil {
		return false, nil, err
	}
	var said struct {
		Happened *bool          `json:"happened"`
		Value    map[string]any `json:"value"`
	}
	if err := json.Unmarshal(out, &said); err != nil || said.Happened == nil {
		return false, nil, fmt.Errorf("%s: answers %.60q where {\"happened\": true or false} belongs", c.Name, out)
	}
	return *said.Happened, said.Value, nil
}

func (c *Command) ask(ctx context.Context, what string, call Call) ([]byte, error) {
	args, err := c.clean(call.Args)
	if err != nil {
		return nil, err
	}
	// Anew: whose the files are may have changed since the start.
	if _, err := child.Trusted(c.program); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	in, err := json.Marshal(question{what, c.Name, call.ID, call.Actor, call.Again, args})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	p := child.Program{
		Self: c.self, Path: c.program, Stdin: append(in, '\n'), User: c.User,
		Limits: child.Limits{MemoryMiB: c.MemoryMiB, CPUs: c.CPUSeconds, Output: c.MaxOutput},
	}
	out, err := p.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	return bytes.TrimSpace(out), nil
}

// object reads an answer: one JSON object, or nothing.
func (c *Command) object(out []byte) (map[string]any, error) {
	if len(out) == 0 {
		return nil, nil
	}
	var m map[string]any
	if err := json.Unmarshal(out, &m); err != nil || m == nil {
		return nil, fmt.Errorf("%s: was done, and answers %.60q, which is no JSON object", c.Name, out)
	}
	return m, nil
}
