// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"

	"fulmar/agent/config"
	"fulmar/agent/identity"
	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/vault"
)

// spoolConfig is the spool under the board's config.
func (a *Agent) spoolConfig() storage.Config {
	c := storage.Config{Dir: a.cfg.SpoolDir(), Clock: a.clock, Log: a.log.With("part", "spool"), OnMemory: a.sayMemory}
	for class, mib := range map[schema.Class]int64{
		schema.ClassAlarm:    a.cfg.Spool.AlarmMiB,
		schema.ClassEvent:    a.cfg.Spool.EventMiB,
		schema.ClassMetric:   a.cfg.Spool.MetricMiB,
		schema.ClassSnapshot: a.cfg.Spool.SnapshotMiB,
	} {
		c.Classes[class].QuotaBytes = mib << 20
	}
	if a.opt.Program != "" {
		c.Probe = a.probe
	}
	if a.cfg.Spool.Encrypt == config.EncryptOff {
		return c
	}
	c.Holder, c.Former = a.holders()
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

// formerKeyFile opens what a key file sealed before a TPM did. It is never made anew.
type formerKeyFile struct{ keyFile }

func (k formerKeyFile) Unseal(blob []byte) ([]byte, error) {
	h, err := vault.ReadKeyFile(string(k.keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", vault.ErrKeyLost, err)
	} else if err != nil {
		return nil, err
	}
	return h.Unseal(blob)
}

// holders gives who seals the spool's keys, and who may have sealed older ones. With
// auto that is who holds the board's own key; what a TPM once sealed stays with it.
func (a *Agent) holders() (vault.Holder, []vault.Holder) {
	file, inTPM := keyFile(a.cfg.SpoolKeyFile()), a.cfg.Spool.Encrypt == config.EncryptTPM
	if a.cfg.Spool.Encrypt == config.EncryptAuto {
		switch where := identity.Where(a.cfg.IdentityDir(), a.cfg.Key.Mode); {
		case where != "":
			inTPM = where == schema.KeyTPM
		default: // a first start, or a board without a fleet
			inTPM = a.chip.Present() || a.cfg.TPM.Required || sealedByTPM(a.cfg.SpoolDir())
		}
	}
	if inTPM {
		return a.chip.Holder(), []vault.Holder{formerKeyFile{file}}
	}
	return file, []vault.Holder{a.chip.Holder()}
}

// sealedByTPM tells who sealed the newest key of a spool.
func sealedByTPM(dir string) bool {
	keys, err := vault.OpenReadOnly(dir, nil, nil)
	if err != nil {
		return false // opening it will say so
	}
	l := keys.List()
	return len(l) > 0 && l[len(l)-1].Kind != vault.KindFile
}

// sayKeys tells the fleet of keys of the spool that are lost.
func (a *Agent) sayKeys() {
	if st := a.spool.Stats().Keys; st != nil && len(st.Lost) > 0 {
		a.say("spool_key", "lost", schema.SeverityAlarm,
			"what this board kept before cannot be read on it any more (another TPM, a cleared one, or another key file); it is told as lost, and only the recovery key opens it")
	}
}

// sayMemory tells the fleet whether records go to disk.
func (a *Agent) sayMemory(why error) {
	if why == nil {
		a.say("spool", "ok", schema.SeverityInfo, "records go to disk again")
		a.sayKeys()
		return
	}
	a.say("spool", "memory", schema.SeverityAlarm,
		"records stay in memory, a crash or a long outage loses them; look at the board's disk: "+why.Error())
}

// probe lets another process look at a file of the spool.
func (a *Agent) probe(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, a.opt.Program, "spool-probe", path)
	cmd.Env = []string{} // it needs nothing
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	return nil
}

// ProbeSpool is what that other process does. That it comes back is the answer.
func ProbeSpool(path string) { storage.ProbeFile(path) }
