// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command broken is fulmard with a fault that the linker sets: exits at once; hangs before
// it is ready; crashes after a while; eats memory; cuts each connection of its own; good has
// none.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"fulmar/agent"
	"fulmar/agent/config"
	"fulmar/agent/probe"
	"fulmar/agent/update/patch"
	"fulmar/device"
)

// Set by the linker.
var (
	release = "dev"
	wrong   = "good"
	after   = "8s" // until it crashes
)

const (
	bite      = 4 << 20 // bytes that are eaten at a time
	biteEvery = 100 * time.Millisecond
	cutEvery  = 50 * time.Millisecond
)

func main() {
	switch {
	case wrong == "exits":
		fmt.Fprintln(os.Stderr, "this release is broken")
		os.Exit(1)
	case wrong == "hangs":
		time.Sleep(time.Hour)
	case len(os.Args) == 3 && os.Args[1] == "spool-probe":
		if probe.Child(os.Args[2], os.Stdout) != nil {
			os.Exit(1)
		}
		return
	case len(os.Args) > 1 && os.Args[1] == patch.Word:
		os.Exit(patch.Child(context.Background(), os.Args[2:], os.Stderr))
	}
	fs := flag.NewFlagSet("run", flag.ExitOnError)
	path := fs.String("config", "", "")
	_ = fs.Parse(os.Args[2:])
	cfg, broken, err := config.LoadOrLastGood(*path)
	fatal(err)
	self, err := os.Executable()
	fatal(err)
	a, err := agent.New(cfg, agent.Options{
		Program: self, ConfigPath: *path, BrokenConfig: broken, Release: release, Root: device.NewRoot("/"),
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Level: new(slog.LevelVar),
	})
	fatal(err)
	go fault()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fatal(a.Run(ctx))
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fault does what is wrong while all else runs.
func fault() {
	switch wrong {
	case "crashes":
		d, err := time.ParseDuration(after)
		fatal(err)
		time.Sleep(d)
		panic("this release crashes")
	case "eats":
		var eaten [][]byte
		for {
			b := make([]byte, bite)
			for i := 0; i < len(b); i += os.Getpagesize() {
				b[i] = 1
			}
			eaten = append(eaten, b)
			runtime.KeepAlive(eaten)
			time.Sleep(biteEvery)
		}
	case "deafens":
		for ; ; time.Sleep(cutEvery) {
			cut()
		}
	}
}

// cut shuts each TCP connection of this process down.
func cut() {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if sa, err := syscall.Getpeername(fd); err == nil {
			if _, tcp := sa.(*syscall.SockaddrInet4); tcp {
				_ = syscall.Shutdown(fd, syscall.SHUT_RDWR)
			}
		}
	}
}
