// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package site brings a component into force by a program of the site's own: RAUC, SWUpdate,
// or anything else that can write a system, switch to it and go back (docs/rootfs.md).
//
// # The manifest
//
// One YAML file, see [Manifest]. It and the program, and the folders above both, belong to
// root or to fulmard's user and are writable by nobody else.
//
// # The program
//
// It is called with a verb and, where the verb is about one, a token, and gets one JSON
// object on standard input:
//
//	PROGRAM running                     {"version": "1.8.2"}
//	PROGRAM stage TOKEN                 {}
//	PROGRAM switch TOKEN                {"restart": "machine"}   none, program or machine
//	PROGRAM look TOKEN                  {"standing": "on-trial", "why": ""}   or not-yet, in-force, fallen
//	PROGRAM confirm TOKEN               {}
//	PROGRAM back TOKEN                  {"restart": "machine"}
//	PROGRAM sweep                       {}
//	PROGRAM space                       {"need": 1000000, "free": 5000000}   bytes
//	PROGRAM restart                     {}   of the machine, where switch or back asked for it
//
// what follows each is the answer on standard output. Each may be called twice, and the
// power may fail within each. A token is "VERSION-HASH", the same for the same content.
//
// Exit codes: 0 done, 28 the disk is full, any other failed, with the end of standard error
// as the reason. It runs within bounds (package child) with fulmard's rights, in fulmard's
// sandbox: what needs more it asks of a service.
package site

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"

	"fulmar/device/child"
	"fulmar/internal/strictjson"
	"fulmar/ota"
	"fulmar/ota/install/stamp"
	"fulmar/ota/install/tree"
	"fulmar/ota/release"
)

// Bounds.
const (
	maxManifest = 16 << 10 // bytes
	maxAnswer   = 4 << 10  // bytes of standard output
	maxWhy      = 300      // bytes of a reason
	maxStage    = 4 * time.Hour
	maxVerb     = 10 * time.Minute
	wordStage   = time.Hour
	wordVerb    = time.Minute
	maxMemory   = 4 << 10 // MiB
	maxCPUs     = 4 * 3600
	wordMemory  = 64
	wordCPUs    = 600
)

// exitFull is ENOSPC as an exit code.
const exitFull = 28

// Manifest is the file.
type Manifest struct {
	Component string `yaml:"component"` // rootfs, config, agent, worker or model/NAME
	Run       string `yaml:"run"`       // absolute path of the program
	// StageTimeout is how long stage may take, at most 4h; 0 is 1h. Timeout is for each
	// other verb, at most 10m; 0 is 1m.
	StageTimeout time.Duration `yaml:"stage_timeout"`
	Timeout      time.Duration `yaml:"timeout"`
	// MemoryMiB bounds its address space, CPUSeconds its time on a processor; 0 is 64 and 600.
	MemoryMiB  int `yaml:"memory_mib"`
	CPUSeconds int `yaml:"cpu_seconds"`
	// User is whose rights it gets where fulmard is root; never root.
	User string `yaml:"user"`
}

// Parse reads a manifest and puts its defaults in.
func Parse(b []byte) (m *Manifest, err error) {
	defer func() {
		if p := recover(); p != nil { // the parser is not ours
			m, err = nil, fmt.Errorf("is not YAML: %v", p)
		}
	}()
	m = &Manifest{StageTimeout: wordStage, Timeout: wordVerb, MemoryMiB: wordMemory, CPUSeconds: wordCPUs}
	if len(b) > maxManifest {
		return nil, fmt.Errorf("is over %d bytes", maxManifest)
	}
	if err := yaml.UnmarshalWithOptions(b, m, yaml.Strict()); err != nil {
		return nil, errors.New(strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	switch {
	case !release.ComponentName(m.Component):
		return nil, fmt.Errorf("component: %.80q, wants rootfs, config, agent, worker or model/NAME", m.Component)
	case !filepath.IsAbs(m.Run):
		return nil, fmt.Errorf("run: %q is not an absolute path", m.Run)
	case m.StageTimeout < time.Second || m.StageTimeout > maxStage || m.Timeout < time.Second || m.Timeout > maxVerb:
		return nil, fmt.Errorf("stage_timeout, timeout: %v and %v, want 1s to %v and 1s to %v", m.StageTimeout, m.Timeout, maxStage, maxVerb)
	case m.MemoryMiB < 1 || m.MemoryMiB > maxMemory || m.CPUSeconds < 1 || m.CPUSeconds > maxCPUs:
		return nil, fmt.Errorf("memory_mib, cpu_seconds: %d and %d, want 1 to %d and 1 to %d", m.MemoryMiB, m.CPUSeconds, maxMemory, maxCPUs)
	case m.User == "root":
		return nil, errors.New("user: root; a program is never run as root")
	}
	return m, nil
}

// Load reads a manifest from its file. self is fulmard's own executable, which bounds the
// program.
func Load(path, self string) (*Program, error) {
	real, err := child.Trusted(path)
	if err != nil {
		return nil, fmt.Errorf("installer %s: %w", path, err)
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, fmt.Errorf("installer %s: %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("installer %s: %w", path, err)
	}
	m, err := Parse(b)
	if err == nil {
		_, err = child.Trusted(m.Run)
	}
	if err != nil {
		return nil, fmt.Errorf("installer %s: %w", path, err)
	}
	return &Program{m: *m, self: self}, nil
}

// Program is the installer of a manifest.
type Program struct {
	m    Manifest
	self string
}

// Component is what it installs.
func (p *Program) Component() string { return p.m.Component }

// question is what the program gets.
type question struct {
	Verb      string   `json:"verb"`
	Component string   `json:"component"`
	Token     string   `json:"token,omitempty"`
	Version   string   `json:"version,omitempty"`
	Files     []file   `json:"files,omitempty"`
	Keep      []string `json:"keep,omitempty"`
	Why       string   `json:"why,omitempty"`
}

type file struct {
	Path     string `json:"path"` // in the component
	File     string `json:"file"` // where it lies; of one that is unpacked the folder
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
	Unpacked bool   `json:"unpacked,omitempty"`
}

// answer is what it may say.
type answer struct {
	Version  string `json:"version"`
	Restart  string `json:"restart"`
	Standing string `json:"standing"`
	Why      string `json:"why"`
	Need     *int64 `json:"need"`
	Free     *int64 `json:"free"`
}

func decodeAnswer(b []byte) (a answer, err error) {
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return a, nil
	}
	if err := strictjson.Decode(b, maxAnswer, &a); err != nil {
		return a, fmt.Errorf("answers %.60q: %w", b, err)
	}
	if a.Version != "" && !release.Name(a.Version) || len(a.Why) > maxAnswer {
		return a, fmt.Errorf("answers version %.80q, wants letters, digits and .-+~_", a.Version)
	}
	if a.Why = strings.Join(strings.Fields(a.Why), " "); len(a.Why) > maxWhy {
		a.Why = strings.ToValidUTF8(a.Why[:maxWhy], "")
	}
	return a, nil
}

// ask runs the program.
func (p *Program) ask(ctx context.Context, q question) (answer, error) {
	q.Component = p.m.Component
	a, err := p.run(ctx, q)
	if err != nil {
		return a, fmt.Errorf("%s: %s %s: %w", p.m.Component, q.Verb, q.Token, err)
	}
	return a, nil
}

func (p *Program) run(ctx context.Context, q question) (answer, error) {
	// Anew: whose the files are may have changed since the start.
	real, err := child.Trusted(p.m.Run)
	if err != nil {
		return answer{}, err
	}
	in, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	limit, args := p.m.Timeout, []string{q.Verb}
	if q.Verb == "stage" {
		limit = p.m.StageTimeout
	}
	if q.Token != "" {
		args = append(args, q.Token)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := child.Program{
		Self: p.self, Path: real, Args: args, Stdin: append(in, '\n'), User: p.m.User,
		Limits: child.Limits{MemoryMiB: p.m.MemoryMiB, CPUs: p.m.CPUSeconds, Output: maxAnswer},
	}
	out, err := c.Run(ctx)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == exitFull {
		return answer{}, fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	}
	if err != nil {
		return answer{}, err
	}
	return decodeAnswer(out)
}

// token refuses what is none before the program sees it.
func (p *Program) token(token string) error {
	if !stamp.Valid(token) {
		return fmt.Errorf("%s: %.140q is no token", p.m.Component, token)
	}
	return nil
}

// Running implements [ota.Installer].
func (p *Program) Running(ctx context.Context) (string, error) {
	a, err := p.ask(ctx, question{Verb: "running"})
	return a.Version, err
}

// Stage implements [ota.Installer].
func (p *Program) Stage(ctx context.Context, c *release.Component, paths map[string]string) (string, error) {
	if c.Name != p.m.Component {
		return "", fmt.Errorf("stage %s: it is %s", p.m.Component, c.Name)
	}
	q := question{Verb: "stage", Token: tree.Token(c), Version: c.Version}
	if err := p.token(q.Token); err != nil {
		return "", err
	}
	for i := range c.Files {
		f := &c.Files[i]
		if err := tree.Holds(ctx, f, paths[f.Path]); err != nil {
			return "", fmt.Errorf("stage %s: %s: %w", p.m.Component, f.Path, err)
		}
		q.Files = append(q.Files, file{Path: f.Path, File: paths[f.Path], Size: f.Size, SHA256: f.SHA256.String(), Unpacked: f.Unpack})
	}
	_, err := p.ask(ctx, q)
	return q.Token, err
}

// Base implements [ota.Installer]: there is none, what the program keeps is its own.
func (p *Program) Base(context.Context, release.Hash) (string, error) {
	return "", fmt.Errorf("%w: %s is kept by a program of the site", ota.ErrNoBase, p.m.Component)
}

// Switch implements [ota.Installer].
func (p *Program) Switch(ctx context.Context, token string) (ota.Restart, error) {
	if err := p.token(token); err != nil {
		return ota.RestartNone, err
	}
	a, err := p.ask(ctx, question{Verb: "switch", Token: token})
	if err != nil {
		return ota.RestartNone, err
	}
	return a.restart()
}

func (a *answer) restart() (ota.Restart, error) {
	for _, r := range []ota.Restart{ota.RestartNone, ota.RestartProgram, ota.RestartMachine} {
		if a.Restart == r.String() || a.Restart == "" && r == ota.RestartNone {
			return r, nil
		}
	}
	return ota.RestartNone, fmt.Errorf("answers restart %.40q, wants none, program or machine", a.Restart)
}

// Look implements [ota.Installer].
func (p *Program) Look(ctx context.Context, token string) (ota.Standing, string, error) {
	if err := p.token(token); err != nil {
		return ota.NotYet, "", err
	}
	a, err := p.ask(ctx, question{Verb: "look", Token: token})
	if err != nil {
		return ota.NotYet, "", err
	}
	for _, s := range []ota.Standing{ota.NotYet, ota.OnTrial, ota.InForce, ota.Fallen} {
		if a.Standing == strings.ReplaceAll(s.String(), " ", "-") {
			return s, a.Why, nil
		}
	}
	return ota.NotYet, "", fmt.Errorf("%s: look answers standing %.40q, wants not-yet, on-trial, in-force or fallen", p.m.Component, a.Standing)
}

// Confirm implements [ota.Installer].
func (p *Program) Confirm(ctx context.Context, token string) error {
	if err := p.token(token); err != nil {
		return err
	}
	_, err := p.ask(ctx, question{Verb: "confirm", Token: token})
	return err
}

// Back implements [ota.Installer].
func (p *Program) Back(ctx context.Context, token, why string) (ota.Restart, error) {
	if err := p.token(token); err != nil {
		return ota.RestartNone, err
	}
	a, err := p.ask(ctx, question{Verb: "back", Token: token, Why: why})
	if err != nil {
		return ota.RestartNone, err
	}
	return a.restart()
}

// Restart implements [ota.Restarter].
func (p *Program) Restart(ctx context.Context, why string) error {
	_, err := p.ask(ctx, question{Verb: "restart", Why: why})
	return err
}

// Sweep implements [ota.Installer].
func (p *Program) Sweep(ctx context.Context, keep []string) error {
	_, err := p.ask(ctx, question{Verb: "sweep", Keep: keep})
	return err
}

// Space implements [ota.Installer].
func (p *Program) Space(ctx context.Context, c *release.Component) (need, free int64, err error) {
	q := question{Verb: "space", Version: c.Version}
	for i := range c.Files {
		f := &c.Files[i]
		q.Files = append(q.Files, file{Path: f.Path, Size: max(f.Size, f.Unpacked), SHA256: f.SHA256.String(), Unpacked: f.Unpack})
		need += max(f.Size, f.Unpacked)
	}
	a, err := p.ask(ctx, q)
	if err != nil {
		return 0, 0, err
	}
	if a.Free == nil { // it does not count: a partition of its own
		return need, math.MaxInt64, nil
	}
	if a.Need != nil {
		need = *a.Need
	}
	return need, *a.Free, nil
}
