// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Command local runs a fleet and one board on loopback until Ctrl-C: `make run`.
//
//	local -dir run                       until Ctrl-C
//	local -dir run -seconds 30 -check    so long, then asks the API whether all arrived
//	local -dir run -tpm                  the board has a TPM (swtpm) and no token: it asks to
//	                                     join, and somebody approves it; with -check we do
//	local -dir run -boards 50            so many simulated boards beside it, some in trouble
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"fulmar/tests/local"
)

const board = "dock-0001"

// lively samples the fast sensors twice a second, so that somebody who looks for
// half a minute sees curves.
const lively = `sample:
  groups:
    - {name: fast, period: 500ms, sensors: [cpu, load, memory, pressure, thermal, synthetic]}
    - {name: normal, period: 5s, sensors: ["*"]}
`

// plant is what the board moves: a valve that follows in five seconds and must not open
// while the made-up sensor is high, and a lamp.
const plant = `sensors: {synthetic: 4}
outputs:
  - name: valve.inlet
    kind: simulated
    unit: percent
    min: 0
    max: 100
    step_per_s: 20
    safe: 0
    restore: last
    interlocks:
      - {when: "synthetic.000 > 70", max_age: 10s, message: "the made-up sensor is high"}
    simulated: {lag: 5s}
  - {name: lamp.aisle, kind: simulated, min: 0, max: 1, safe: 1, restore: leave}
`

func main() {
	dir := flag.String("dir", "run", "folder of all data and logs")
	seconds := flag.Int("seconds", 0, "end after so many seconds; 0 runs until Ctrl-C")
	check := flag.Bool("check", false, "at the end ask the API whether everything arrived exactly once")
	tpm := flag.Bool("tpm", false, "the board's key is in a software TPM, and a person lets it in")
	boards := flag.Int("boards", 0, "so many simulated boards beside it, of several sites")
	listen := flag.String("listen", "127.0.0.1:8443", "address of the page")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, options{*dir, *listen, time.Duration(*seconds) * time.Second, *check, *tpm, *boards}); err != nil {
		fmt.Fprintln(os.Stderr, "make run:", err)
		os.Exit(1)
	}
}

type options struct {
	dir, listen string
	length      time.Duration
	check, tpm  bool
	boards      int
}

func run(ctx context.Context, o options) (err error) {
	site, err := newSite(o)
	if err != nil {
		return err
	}
	if err := site.StartFleet(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ended(site.Fleet)) }()
	releases := site.TakeReleases(ctx) // the page serves without that too
	b := local.Board{Name: board, Extra: local.SceneYAML + lively + plant}
	if o.tpm {
		var chip *local.Proc
		if chip, b.TPM, err = site.StartTPM(board); err != nil {
			return err
		}
		defer chip.Kill()
	}
	config, err := site.PrepareBoard(b)
	if err != nil {
		return err
	}
	proc, err := startBoard(site, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ended(proc)) }()
	fmt.Printf(`
  open https://%s
  the browser warns once: the certificate is of the fleet's own authority
  log in as admin with the one-time password above (lost it? bin/fulmar-fleet reset-password --data %s)

  one board, %s, samples this machine, watches a sorting line and has a valve and a lamp
  logs and data: %s
  Ctrl-C stops all

`, site.HTTPS, filepath.Join(site.Dir, "fleet"), board, site.Dir)
	if err := updates(site, releases); err != nil {
		return err
	}
	if o.tpm {
		if err := admission(ctx, site, proc, o.check); err != nil {
			return err
		}
	}
	crowd, err := startCrowd(ctx, site, o.boards)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, crowd.stop()) }()
	return watch(ctx, o, site, proc, crowd)
}

// newSite makes the site of one run.
func newSite(o options) (*local.Site, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	root := filepath.Dir(filepath.Dir(self))
	ort, err := library(root)
	if err != nil {
		return nil, err
	}
	site, err := local.New(o.dir, filepath.Join(root, "bin"), ort)
	if err != nil {
		return nil, err
	}
	site.HTTPS, site.Echo = o.listen, os.Stdout
	return site, nil
}

// watch waits for the end of the run, or of a part of it, and checks if that was asked for.
func watch(ctx context.Context, o options, site *local.Site, proc *local.Kept, crowd *crowd) error {
	var end <-chan time.Time
	if o.length > 0 {
		end = time.After(o.length)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-end:
	case <-proc.Done():
		_, err := proc.Stop()
		return fmt.Errorf("fulmard ended: %w\n%s", err, proc.Output())
	case <-site.Fleet.Done():
		return fmt.Errorf("fulmar-fleet ended:\n%s", site.Fleet.Output())
	case <-crowd.done:
		return crowd.stop()
	}
	if !o.check {
		return nil
	}
	if err := crowd.check(); err != nil {
		return err
	}
	return checked(ctx, site, proc)
}

// admission tells who asks to join and where a person decides, or decides itself, and
// waits until the board is in.
func admission(ctx context.Context, site *local.Site, proc *local.Kept, approve bool) error {
	finger, err := site.Waiting(ctx, board)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Ctrl-C while it asked
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, proc.Output())
	}
	if finger == "" {
		fmt.Printf("  %s has its key in a TPM (swtpm) and was let in before\n\n", board)
		return nil
	}
	fmt.Printf(`  %s has its key in a TPM (swtpm) and no token: it asks to join
  its fingerprint is %s; approve it where the page shows the same: https://%s

`, board, finger, site.HTTPS)
	if !approve {
		return nil
	}
	if err := site.Admit(ctx, board, finger); err != nil {
		return err
	}
	fmt.Printf("  approved through the API, as -check asks for\n\n")
	for { // the books want samples of the whole time: it begins when the board is in
		switch finger, err := site.Waiting(ctx, board); {
		case err != nil:
			return err
		case finger == "":
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// checked stops the board, so that its books close, and asks the fleet.
func checked(ctx context.Context, site *local.Site, proc *local.Kept) error {
	api, err := site.API()
	if err != nil {
		return err
	}
	if _, err := proc.Stop(); err != nil {
		return err
	}
	report, err := api.Check(ctx, board, local.Wanted{Sensors: 5, Samples: 30, Detections: 30})
	fmt.Print(report)
	return err
}

// running is a program, kept or not.
type running interface {
	Done() <-chan struct{}
	Stop() (time.Duration, error)
}

func ended(p running) error {
	select {
	case <-p.Done():
		return nil
	default:
		_, err := p.Stop()
		return err
	}
}

func library(root string) (string, error) {
	found, err := filepath.Glob(filepath.Join(root, ".cache/onnxruntime/*/linux-"+arch()+"/libonnxruntime.so.1"))
	if err != nil || len(found) == 0 {
		return "", errors.New("ONNX Runtime is not in .cache; type: make ort")
	}
	return found[len(found)-1], nil
}
