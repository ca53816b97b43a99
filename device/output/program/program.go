// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package program is an output behind a program of the user's: it is run for each set, and
// where it can also tell, for each look. Only the value goes into its arguments; there is
// no shell and no environment. Package child bounds it.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"fulmar/device/child"
)

const (
	// Value is what stands for the value in an argument.
	Value = "{value}"

	maxArg        = 256 // bytes
	maxOutput     = 4 << 10
	maxMemory     = 1 << 10 // MiB
	defaultMemory = 64
	maxCPUs       = 30 // s; the output's timeout is the nearer bound
)

// Config says what is run.
type Config struct {
	// Set is the program, by its absolute path, and its arguments. {value} in an argument
	// is the value, as a decimal number.
	Set []string `yaml:"set"`
	// Get prints where the output stands, as a number; empty: it cannot be asked.
	Get []string `yaml:"get"`
	// MemoryMiB bounds the address space of each; 0 is 64.
	MemoryMiB int `yaml:"memory_mib"`
	// User is whose rights it gets where fulmard is root.
	User string `yaml:"user"`
}

// Validate checks the form.
func (c *Config) Validate() error {
	if err := command(c.Set); err != nil {
		return fmt.Errorf("set: %w", err)
	}
	if !strings.Contains(strings.Join(c.Set[1:], "\x00"), Value) {
		return fmt.Errorf("set: none of its arguments has %s, so it would not hear the value", Value)
	}
	if len(c.Get) > 0 {
		if err := command(c.Get); err != nil {
			return fmt.Errorf("get: %w", err)
		}
	}
	if c.MemoryMiB < 0 || c.MemoryMiB > maxMemory {
		return fmt.Errorf("memory_mib: %d, wants 0 (%d) to %d", c.MemoryMiB, defaultMemory, maxMemory)
	}
	if c.User == "root" {
		return errors.New("user: root; a program is never run as root")
	}
	return nil
}

func command(words []string) error {
	if len(words) == 0 || !filepath.IsAbs(words[0]) {
		return errors.New("wants the absolute path of a program, then its arguments")
	}
	if len(words) > child.MaxArgs {
		return fmt.Errorf("%d words, at most %d", len(words), child.MaxArgs)
	}
	for _, w := range words {
		if len(w) > maxArg {
			return fmt.Errorf("a word of %d bytes, at most %d", len(w), maxArg)
		}
	}
	return nil
}

// Output is one such output.
type Output struct {
	name string
	cfg  Config
	self string
}

// New makes one. self is fulmard's executable, see package child.
func New(name string, cfg Config, self string) *Output {
	if cfg.MemoryMiB == 0 {
		cfg.MemoryMiB = defaultMemory
	}
	return &Output{name: name, cfg: cfg, self: self}
}

// Name is the output's.
func (o *Output) Name() string { return o.name }

// Set runs the program; its exit code says whether the device took the value.
func (o *Output) Set(ctx context.Context, value float64) error {
	_, err := o.run(ctx, o.cfg.Set, strconv.FormatFloat(value, 'f', -1, 64))
	return err
}

// Get runs the other program and reads the number that it prints.
func (o *Output) Get(ctx context.Context) (float64, bool, error) {
	if len(o.cfg.Get) == 0 {
		return 0, false, nil
	}
	out, err := o.run(ctx, o.cfg.Get, "")
	if err != nil {
		return 0, false, err
	}
	text := string(bytes.TrimSpace(out))
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, false, fmt.Errorf("%s printed %.40q, wants a number", o.cfg.Get[0], text)
	}
	return v, true, nil
}

func (o *Output) run(ctx context.Context, words []string, value string) ([]byte, error) {
	args := make([]string, 0, len(words)-1)
	for _, w := range words[1:] {
		args = append(args, strings.ReplaceAll(w, Value, value))
	}
	p := child.Program{
		Self: o.self, Path: words[0], Args: args, User: o.cfg.User,
		Limits: child.Limits{MemoryMiB: o.cfg.MemoryMiB, CPUs: maxCPUs, Output: maxOutput},
	}
	return p.Run(ctx)
}
