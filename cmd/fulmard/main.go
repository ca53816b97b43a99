// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command fulmard runs one board: it samples sensors, keeps the inference worker
// busy, and delivers everything to the fleet through outages.
//
//	fulmard run [--config FILE]       run until SIGTERM
//	fulmard config check [FILE]       read a config and its drop-ins, say what is wrong with it
//	fulmard config show [--json] [FILE]
//	                                  the config in force, and which file each key is from
//	fulmard config --defaults         print every key with its default
//	fulmard wipe --yes BOARD          destroy this board's keys, records and counter
//	fulmard version
//
// Exit codes: 0 ended in order, 1 an error that stands on standard error, 2 wrong
// usage.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"fulmar/agent"
	"fulmar/agent/config"
	"fulmar/agent/diagnose"
	"fulmar/agent/probe"
	"fulmar/agent/update/patch"
	"fulmar/agent/wipe"
	"fulmar/device"
	"fulmar/device/child"
)

// release is set by the linker.
var release = "dev"

const usage = `usage:
  fulmard run [--config FILE] [--sysroot DIR]
  fulmard config check [FILE]
  fulmard config show [--json] [FILE]
  fulmard config --defaults
  fulmard wipe --yes BOARD [--config FILE]
  fulmard version
`

// Memory of a small board goes to its models, not to garbage of ours: collect
// at a quarter of growth and give memory back at the budget of the agent.
const (
	gcPercent   = 25
	memoryLimit = 12 << 20
)

const configPath = "/etc/fulmar/fulmard.yaml"

func main() {
	os.Exit(fulmard(os.Args[1:], os.Stdout, os.Stderr))
}

func fulmard(args []string, stdout, stderr io.Writer) int {
	switch {
	case len(args) >= 1 && args[0] == "run":
		return runBoard(args[1:], stderr)
	case len(args) >= 2 && args[0] == "config" && (args[1] == "check" || args[1] == "show"):
		return tellConfig(args[1], args[2:], stdout, stderr)
	case len(args) == 2 && args[0] == "config" && args[1] == "--defaults":
		fmt.Fprint(stdout, config.DefaultsYAML)
		return 0
	case len(args) == 2 && args[0] == "spool-probe": // fulmard's own child, see agent/probe
		if err := probe.Child(args[1], stdout); err != nil {
			fmt.Fprintf(stderr, "fulmard: %v\n", err)
			return 1
		}
		return 0
	case len(args) >= 1 && args[0] == child.Word: // fulmard's own child, see device/child
		return child.Become(args[1:], stderr)
	case len(args) >= 1 && args[0] == patch.Word: // fulmard's own child, see agent/update/patch
		return patch.Child(context.Background(), args[1:], stderr)
	case len(args) >= 1 && args[0] == "wipe":
		return wipeBoard(args[1:], stdout, stderr)
	case len(args) == 1 && args[0] == "version":
		fmt.Fprintln(stdout, "fulmard", release)
		return 0
	}
	fmt.Fprint(stderr, usage)
	return 2
}

// tellConfig says whether a config and its drop-ins are good, or shows them as one.
func tellConfig(word string, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("fulmard config "+word, flag.ContinueOnError)
	fs.SetOutput(stderr)
	asJSON := false
	if word == "show" {
		fs.BoolVar(&asJSON, "json", false, "for programs: the config, its files, and which key is from which")
	}
	if err := fs.Parse(args); err != nil || fs.NArg() > 1 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	path := configPath
	if fs.NArg() == 1 {
		path = fs.Arg(0)
	}
	var out []byte
	var err error
	switch {
	case asJSON:
		out, err = config.ShowJSON(path)
	case word == "show":
		out, err = config.Show(path)
	default:
		var files []string
		var cfg *config.Config
		if cfg, err = config.Load(path); err == nil {
			files, err = config.Files(path)
		}
		out = fmt.Appendf(nil, "%s is good\n", strings.Join(files, " with "))
		if err == nil && cfg.Fleet.Address == "" && cfg.Broker.Address == "" {
			out = append(out, "it names no fleet yet: type fulmar enrol\n"...)
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "fulmard: %v\n", err)
		return 1
	}
	_, _ = stdout.Write(out)
	return 0
}

// wipeBoard destroys what makes this machine this board.
func wipeBoard(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("fulmard wipe", flag.ContinueOnError)
	fs.SetOutput(stderr)
	path := fs.String("config", configPath, "config file")
	yes := fs.String("yes", "", "the board's name, to say that it is meant")
	if err := fs.Parse(args); err != nil || fs.NArg() > 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	cfg, _, err := config.LoadOrLastGood(*path)
	if err == nil && *yes == "" {
		fmt.Fprintf(stderr, "fulmard: this destroys the keys and all records of board %q; say --yes %s\n", wipe.Name(cfg), wipe.Name(cfg))
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err == nil {
		err = wipe.Board(ctx, cfg, *yes, stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "fulmard: %v\n", err)
		return 1
	}
	return 0
}

func runBoard(args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet("fulmard run", flag.ContinueOnError)
	fs.SetOutput(stderr)
	path := fs.String("config", configPath, "config file")
	sysroot := fs.String("sysroot", "/", "root under which sensors are read")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	cfg, broken, err := config.LoadOrLastGood(*path)
	if err != nil {
		fmt.Fprintf(stderr, "fulmard: %v\n", err)
		return 1
	}
	level := new(slog.LevelVar)
	tail := new(diagnose.Tail)
	log := logger(cfg, level, io.MultiWriter(stderr, tail))
	self, err := os.Executable()
	if err != nil {
		log.Warn("own program not found, the spool's files are not looked at beforehand", "err", err)
	}
	a, err := agent.New(cfg, agent.Options{
		Program:    self,
		ConfigPath: *path, BrokenConfig: broken, Release: release, Root: device.NewRoot(*sysroot), Log: log, Level: level, Tail: tail,
	})
	if err != nil {
		fmt.Fprintf(stderr, "fulmard: %v\n", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := a.Run(ctx); err != nil {
		log.Error("ended with an error", "err", err)
		return 1
	}
	return 0
}

func logger(cfg *config.Config, level *slog.LevelVar, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	_ = level.UnmarshalText([]byte(cfg.Log.Level)) // validated
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
