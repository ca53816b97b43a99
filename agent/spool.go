// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"golang.org/x/sys/unix"

	"fulmar/agent/config"
	"fulmar/agent/identity"
	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/vault"
)

// spoolConfig is the spool under the board's config.
func (a *Agent) spoolConfig() storage.Config {
	c := storage.Config{Dir: a.cfg.SpoolDir(), Owner: a.boardName(), Clock: a.clock, Log: a.log.With("part", "spool"), OnMemory: a.sayMemory}
	for class, mib := range map[schema.Class]int64{
		schema.ClassAlarm:    a.cfg.Spool.AlarmMiB,
		schema.ClassEvent:    a.cfg.Spool.EventMiB,
		schema.ClassMetric:   a.cfg.Spool.MetricMiB,
		schema.ClassSnapshot: a.cfg.Spool.SnapshotMiB,
	} {
		c.Classes[class].QuotaBytes = mib << 20
	}
	c.Classes[schema.ClassEvent].TTL, c.Classes[schema.ClassMetric].TTL = a.cfg.Spool.TTL.Event, a.cfg.Spool.TTL.Metric
	if !a.bootKnown && a.cfg.Spool.TTL != (config.TTL{}) {
		// Two runs in one boot would be taken for two boots, and their time counted twice.
		a.log.Error("spool.ttl is left out: without the kernel's boot id nobody can tell how old a record is")
		c.Classes[schema.ClassEvent].TTL, c.Classes[schema.ClassMetric].TTL = 0, 0
	}
	if a.opt.Program != "" {
		c.Probe = a.probe
	}
	if a.cfg.Spool.Encrypt == config.EncryptOff {
		return c
	}
	c.Holder = keyFile(a.cfg.SpoolKeyFile())
	if path := a.cfg.Spool.RecoveryKey; path != "" {
		pub, err := vault.ReadRecoveryPublic(path)
		if err != nil {
			// A board that runs without it is better than one that does not run.
			a.log.Error("recovery key not read: if this board dies its disk can be read by nobody", "err", err)
		}
		c.Recovery = pub
	}
	return c
}

// boardName is the name under which this board will send: that of its identity, else
// what its config says, which is what it asks the fleet for; "": the fleet chooses.
func (a *Agent) boardName() string {
	if a.cfg.Broker.Address == "" {
		if name := identity.StoredBoard(a.cfg.IdentityDir()); name != "" {
			return name
		}
	}
	return a.cfg.Board
}

// claimSpool makes sure that what the spool gives to read is this board's. Where it is
// not, nothing may be sent: it waits for the stop and gives false. The board goes on
// sampling and keeps what it makes, for a restart that a person sees to.
func (a *Agent) claimSpool(ctx context.Context, board string) bool {
	err := a.spool.Claim(board)
	if errors.Is(err, storage.ErrOwner) {
		a.log.Error("nothing is sent: the spool is another board's", "err", err)
		a.setLink("refused", err)
		<-ctx.Done()
		return false
	}
	if err != nil { // the next start does it
		a.log.Warn("spool does not say whose it is", "err", err)
	}
	return true
}

// keyFile is a holder that opens its file when it is asked, so that a file that
// cannot be used is a fault of the spool, which then works from memory and says so,
// and not of the start.
type keyFile string

func (k keyFile) Kind() string { return vault.KindFile }

func (k keyFile) Seal(key []byte) ([]byte, error) {
	h, err := vault.OpenKeyFile(string(k))
	if err != nil {
		return nil, err
	}
	return h.Seal(key)
}

func (k keyFile) Unseal(blob []byte) ([]byte, error) {
	h, err := vault.OpenKeyFile(string(k))
	if err != nil {
		return nil, err
	}
	return h.Unseal(blob)
}

// sayMemory tells the fleet whether records go to disk.
func (a *Agent) sayMemory(why error) {
	if why == nil {
		a.say("spool", "ok", schema.SeverityInfo, "records go to disk again")
		return
	}
	a.say("spool", "memory", schema.SeverityAlarm,
		"records stay in memory, a crash or a long outage loses them; look at the board's disk: "+why.Error())
}

const (
	// probeData bounds the memory of the process that looks at a file, bytes. It was seen
	// to come back from a sound file with 40 MiB; from one without an end it never would.
	probeData = 128 << 20
	// probeCPU bounds its time on a processor, s, should fulmard be killed meanwhile.
	probeCPU = 10
	// probing is what it says before it opens the file.
	probing = "looking\n"
)

// probe lets another process look at a file of the spool. An error says that the file
// ended that process; one that never came to the file says nothing about it.
func (a *Agent) probe(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, a.opt.Program, "spool-probe", path)
	cmd.Env = []string{} // it needs nothing
	said, err := cmd.Output()
	if err != nil && string(said) != probing {
		a.log.Warn("spool segment could not be looked at beforehand", "path", path, "err", err)
		return nil
	}
	if ended := new(exec.ExitError); errors.As(err, &ended) {
		words, _, _ := bytes.Cut(ended.Stderr, []byte("\n"))
		return fmt.Errorf("look at %s: %w: %s", path, err, words)
	}
	return err
}

// ProbeSpool is what that other process does. That it comes back is the answer.
func ProbeSpool(path string, stdout io.Writer) error {
	for what, most := range map[int]uint64{unix.RLIMIT_DATA: probeData, unix.RLIMIT_CPU: probeCPU} {
		if err := unix.Setrlimit(what, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("a look at %s wants a bound: %w", path, err)
		}
	}
	if _, err := io.WriteString(stdout, probing); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	storage.ProbeFile(path)
	return nil
}
