// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"fulmar/inference/engines/build"
	"fulmar/inference/engines/cache"
	"fulmar/internal/peercred"
)

const (
	// defaultCache is where fulmard's own default puts it.
	defaultCache = "/var/lib/fulmar-infer/engines"
	// defaultBatch is fulmard's too: an engine built by hand with the defaults is the
	// one the worker looks for.
	defaultBatch = 4
	// giveUp is how long a cancelled build may take to end: TensorRT 8 cannot be
	// cancelled, and others may hang.
	giveUp = 20 * time.Second
	// askWait is how long a request for a build may take to come: its caller has it ready.
	askWait = 10 * time.Second
	// tailLines is how much of the library's log goes into an engine's description.
	tailLines = 20
)

// buildFlags are the options of model build.
type buildFlags struct {
	cache    string
	quota    int64
	options  cache.Options
	memory   int64
	progress string
	anew     bool
	child    bool
	path     string
	variant  string
}

func parseBuild(args []string) (*buildFlags, error) {
	f := &buildFlags{}
	fs := flag.NewFlagSet("model build", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.cache, "cache", defaultCache, "")
	fs.Int64Var(&f.quota, "quota", cache.DefaultQuota, "")
	fs.IntVar(&f.options.MaxBatch, "batch", defaultBatch, "")
	fs.IntVar(&f.options.Level, "level", -1, "")
	fs.IntVar(&f.options.DLACore, "dla", -1, "")
	fs.Int64Var(&f.memory, "memory", 0, "")
	fs.StringVar(&f.progress, "progress", "auto", "")
	fs.BoolVar(&f.anew, "anew", false, "")
	fs.BoolVar(&f.child, "child", false, "")
	if err := fs.Parse(args); err != nil {
		return nil, errUsage
	}
	switch rest := fs.Args(); len(rest) {
	case 2:
		f.variant = rest[1]
		fallthrough
	case 1:
		f.path = rest[0]
	default:
		return nil, errUsage
	}
	switch f.progress {
	case "auto", "json", "line":
	default:
		return nil, errUsage
	}
	return f, nil
}

// buildEngine is model build: by hand, and as the worker's child.
func buildEngine(ctx context.Context, o options, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	f, err := parseBuild(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.child {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			cancel() // the worker is gone
		}()
	}
	out, isFile := stdout.(*os.File)
	t := &build.Teller{Out: stdout, JSON: f.progress == "json"}
	if f.progress == "auto" {
		st, err := statOf(out, isFile)
		t.Terminal = err == nil && st.Mode()&os.ModeCharDevice != 0
		t.JSON = !t.Terminal
	}
	return f.run(ctx, o, t, stderr)
}

// run builds, tells the end and gives the error that the program ends with.
func (f *buildFlags) run(ctx context.Context, o options, t *build.Teller, stderr io.Writer) error {
	context.AfterFunc(ctx, func() {
		time.AfterFunc(giveUp, func() {
			fmt.Fprintln(stderr, "fulmar-infer: the library does not end its build; ended without it")
			os.Exit(build.ExitCancelled)
		})
	})
	done, err := f.make(ctx, o, t, stderr)
	if ctx.Err() != nil {
		err = errors.Join(context.Canceled) // whatever the library said of it
	}
	code := build.Code(err)
	t.End(done, err, code)
	if err != nil {
		if code == build.ExitCancelled {
			err = errors.New("the build was cancelled")
		}
		return &codedError{err, code}
	}
	return nil
}

// serveBuild builds what is asked for on the connection that is standard input, which
// systemd took for fulmar-build@.service.
func serveBuild(ctx context.Context, o options, stdin *os.File, stderr io.Writer) error {
	c, err := net.FileConn(stdin)
	if err != nil {
		return fmt.Errorf("standard input is no connection: fulmar-build.socket starts this: %w", err)
	}
	defer c.Close()
	if err := peercred.Check(c); err != nil {
		return err
	}
	t := &build.Teller{Out: c, JSON: true}
	err = c.SetReadDeadline(time.Now().Add(askWait))
	var j *build.Job
	if err == nil {
		j, err = build.ReadRequest(c)
	}
	if err = errors.Join(err, c.SetReadDeadline(time.Time{})); err != nil {
		err = fmt.Errorf("%w: %w", build.ErrRefused, err)
		t.End(nil, err, build.ExitRefused)
		return &codedError{err, build.ExitRefused}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, c)
		cancel() // the worker is gone, or wants it no more
	}()
	f := &buildFlags{cache: j.Cache, quota: j.Quota, options: j.Options, path: j.Path, variant: j.Variant}
	return f.run(ctx, o, t, stderr)
}

func statOf(f *os.File, is bool) (os.FileInfo, error) {
	if !is {
		return nil, os.ErrInvalid
	}
	return f.Stat()
}

// make opens what the build needs and runs it.
func (f *buildFlags) make(ctx context.Context, o options, t *build.Teller, stderr io.Writer) (_ *build.Done, err error) {
	tail := &tail{}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(stderr, tail), &slog.HandlerOptions{Level: o.level, ReplaceAttr: options{child: true}.attr}))
	if err := build.Humble(f.memory << 20); err != nil {
		log.Warn("the build may disturb others", "error", err)
	}
	dir, closeDir, err := files(f.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", build.ErrRefused, err)
	}
	defer func() { err = errors.Join(err, closeDir()) }()
	c, err := cache.Open(f.cache, f.quota, log)
	if err != nil {
		return nil, err
	}
	l4t, err := cache.L4T("/")
	if err != nil {
		return nil, err
	}
	gpu, err := openGPU(o.tensorrt, log)
	if err != nil {
		return nil, err
	}
	m := &build.Maker{
		Release: release, Files: dir, Variant: f.variant, Cache: c, Builder: gpu, L4T: l4t,
		Options: f.options, Anew: f.anew, Teller: t, Log: log, LogTail: tail.lines,
	}
	return m.Make(ctx)
}

// tail keeps the last lines of a log.
type tail struct {
	mu   sync.Mutex
	kept []string
}

// Write takes whole lines, as a log handler gives them.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const longest = 500 // bytes of a line
	s := strings.ToValidUTF8(strings.TrimSpace(string(b)), "?")
	t.kept = append(t.kept, s[:min(len(s), longest)])
	if over := len(t.kept) - tailLines; over > 0 {
		t.kept = t.kept[over:]
	}
	return len(b), nil
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.kept...)
}
