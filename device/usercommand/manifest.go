// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package usercommand

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"

	"fulmar/device/child"
)

// Bounds of manifests.
const (
	// MaxCommands is more than a person can remember.
	MaxCommands  = 64
	maxManifest  = 16 << 10 // bytes
	maxArgs      = 16
	maxChoices   = 64
	maxText      = 1 << 10 // bytes of one argument's text
	maxEffect    = 256     // bytes
	maxTimeout   = time.Hour
	maxOutput    = 8 << 10 // bytes: what a result may hold
	maxMemory    = 4 << 10 // MiB
	maxCPUs      = 3600    // s
	wordTimeout  = 30 * time.Second
	wordOutput   = 4 << 10
	wordMemory   = 64
	wordCPUs     = 30
	maxInteger   = 1 << 53 // what a JSON number keeps exactly
	longestShort = time.Minute
)

// The types of arguments.
const (
	Number  = "number"
	Integer = "integer"
	Text    = "text"
	Bool    = "bool"
)

// The lanes, as package command has them. The safety lane is for built-in commands.
const (
	Normal = "normal"
	Long   = "long"
)

// Field is one argument.
type Field struct {
	Name     string   `yaml:"name"`
	Type     string   `yaml:"type"`
	Required bool     `yaml:"required"`
	Min      *float64 `yaml:"min"` // of numbers
	Max      *float64 `yaml:"max"`
	OneOf    []string `yaml:"one_of"`  // of texts
	MaxLen   int      `yaml:"max_len"` // of texts, in bytes; 0 is 64
	Help     string   `yaml:"help"`
}

// Manifest is the file.
type Manifest struct {
	Name   string  `yaml:"name"`
	Effect string  `yaml:"effect"` // what it does, for those who give it
	Run    string  `yaml:"run"`    // absolute path of the program
	Args   []Field `yaml:"args"`
	// Timeout is how long it may take; 0 is 30 s.
	Timeout time.Duration `yaml:"timeout"`
	// MaxOutput bounds its answer, in bytes; 0 is 4096.
	MaxOutput int `yaml:"max_output"`
	// Lane is normal (one after the other; at most a minute) or long (beside the others).
	Lane string `yaml:"lane"`
	// Repeat: done twice it has the effect of once. Happened: it can tell whether its
	// effect is there. At most one; without either, a command that was cut off is ended as
	// unknown.
	Repeat   bool `yaml:"repeat"`
	Happened bool `yaml:"happened"`
	// MemoryMiB bounds its address space, CPUSeconds its time on a processor; 0 is 64 and 30.
	MemoryMiB  int `yaml:"memory_mib"`
	CPUSeconds int `yaml:"cpu_seconds"`
	// User is whose rights it gets where fulmard is root; never root.
	User string `yaml:"user"`
}

var nameForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`) })

var fieldForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`) })

// parse reads a manifest and puts its defaults in.
func parse(b []byte) (m *Manifest, err error) {
	defer func() {
		if p := recover(); p != nil { // the parser is not ours
			m, err = nil, fmt.Errorf("is not YAML: %v", p)
		}
	}()
	m = &Manifest{}
	if err := yaml.UnmarshalWithOptions(b, m, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s", strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	if m.Timeout == 0 {
		m.Timeout = wordTimeout
	}
	if m.MaxOutput == 0 {
		m.MaxOutput = wordOutput
	}
	if m.Lane == "" {
		m.Lane = Normal
	}
	if m.MemoryMiB == 0 {
		m.MemoryMiB = wordMemory
	}
	if m.CPUSeconds == 0 {
		m.CPUSeconds = wordCPUs
	}
	return m, m.Validate()
}

// Validate checks the form.
func (m *Manifest) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameForm().MatchString(m.Name) {
		bad("name: %.70q is not of the form %s", m.Name, nameForm())
	}
	if m.Effect == "" || len(m.Effect) > maxEffect {
		bad("effect: wants 1 to %d bytes that say what it does", maxEffect)
	}
	if !filepath.IsAbs(m.Run) {
		bad("run: %q is not an absolute path", m.Run)
	}
	if m.Timeout < time.Second || m.Timeout > maxTimeout {
		bad("timeout: %v, wants 1s to %v", m.Timeout, maxTimeout)
	} else if m.Lane == Normal && m.Timeout > longestShort {
		bad("timeout: %v in lane normal, where others wait for it; at most %v, or lane: long", m.Timeout, longestShort)
	}
	if m.MaxOutput < 1 || m.MaxOutput > maxOutput {
		bad("max_output: %d, wants 1 to %d", m.MaxOutput, maxOutput)
	}
	if m.Lane != Normal && m.Lane != Long {
		bad("lane: %q, wants normal or long", m.Lane)
	}
	if m.Repeat && m.Happened {
		bad("repeat, happened: at most one of the two")
	}
	if m.MemoryMiB < 1 || m.MemoryMiB > maxMemory || m.CPUSeconds < 1 || m.CPUSeconds > maxCPUs {
		bad("memory_mib, cpu_seconds: %d and %d, want 1 to %d and 1 to %d", m.MemoryMiB, m.CPUSeconds, maxMemory, maxCPUs)
	}
	if m.User == "root" {
		bad("user: root; a program is never run as root")
	}
	if len(m.Args) > maxArgs {
		bad("args: %d, at most %d", len(m.Args), maxArgs)
	}
	seen := map[string]bool{}
	for i, f := range m.Args {
		if err := f.validate(); err != nil {
			bad("args[%d].%w", i, err)
		}
		if seen[f.Name] {
			bad("args[%d].name: %q is there twice", i, f.Name)
		}
		seen[f.Name] = true
	}
	return errors.Join(errs...)
}

func (f *Field) validate() error {
	number := f.Type == Number || f.Type == Integer
	switch {
	case !fieldForm().MatchString(f.Name):
		return fmt.Errorf("name: %.40q is not of the form %s", f.Name, fieldForm())
	case !slices.Contains([]string{Number, Integer, Text, Bool}, f.Type):
		return fmt.Errorf("type: %q, wants number, integer, text or bool", f.Type)
	case number && (f.Min == nil || f.Max == nil):
		return errors.New("min, max: are missing; a number has a range")
	case number && !(*f.Min <= *f.Max && math.Abs(*f.Min) <= maxInteger && math.Abs(*f.Max) <= maxInteger):
		return fmt.Errorf("max: %v with min %v, wants min up to max within %d", *f.Max, *f.Min, int64(maxInteger))
	case !number && (f.Min != nil || f.Max != nil):
		return errors.New("min, max: belong to numbers; text has max_len")
	case f.Type != Text && (len(f.OneOf) > 0 || f.MaxLen != 0):
		return errors.New("one_of, max_len: belong to texts")
	case len(f.OneOf) > maxChoices || f.MaxLen < 0 || f.MaxLen > maxText || len(f.Help) > maxEffect:
		return fmt.Errorf("one_of, max_len, help: at most %d words, %d and %d bytes", maxChoices, maxText, maxEffect)
	}
	return nil
}

// Load reads the manifests of a folder, sorted by file. A bad one is in the error, and
// the others are there all the same. A folder that is not there has none. self is
// fulmard's own executable, which bounds the programs.
func Load(dir, self string) ([]*Command, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, nil
	}
	slices.Sort(paths)
	var errs []error
	if len(paths) > MaxCommands {
		errs = append(errs, fmt.Errorf("%s: has %d manifests, at most %d are read", dir, len(paths), MaxCommands))
		paths = paths[:MaxCommands]
	}
	var out []*Command
	seen := map[string]string{}
	for _, p := range paths {
		c, err := load(p, self)
		if err == nil && seen[c.Name] != "" {
			err = fmt.Errorf("name: %s is in %s already", c.Name, seen[c.Name])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("user command %s: %w", p, err))
			continue
		}
		seen[c.Name] = p
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

func load(path, self string) (*Command, error) {
	if _, err := child.Trusted(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxManifest {
		return nil, fmt.Errorf("is over %d bytes", maxManifest)
	}
	m, err := parse(b)
	if err != nil {
		return nil, err
	}
	c := &Command{Manifest: *m, self: self}
	if c.program, err = child.Trusted(m.Run); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	return c, nil
}
