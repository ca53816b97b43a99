// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"

	"fulmar/agent/config"
	"fulmar/agent/identity"
	"fulmar/agent/probe"
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

// boardName is the name under which this board will send: that of its identity, else
// what its config says, which is what it asks the fleet for; "": none yet.
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

// holders gives who seals the spool's keys, and who may have sealed older ones. With
// auto that is who holds the board's own key; what a TPM once sealed stays with it.
func (a *Agent) holders() (vault.Holder, []vault.Holder) {
	file, inTPM := vault.LazyFile(a.cfg.SpoolKeyFile()), a.cfg.Spool.Encrypt == config.EncryptTPM
	if a.cfg.Spool.Encrypt == config.EncryptAuto {
		switch where := identity.Where(a.cfg.IdentityDir(), a.cfg.Key.Mode); {
		case where != "":
			inTPM = where == schema.KeyTPM
		default: // a first start, or a board without a fleet
			inTPM = a.chip.Present() || a.cfg.TPM.Required || sealedByTPM(a.cfg.SpoolDir())
		}
	}
	if inTPM {
		return a.chip.Holder(), []vault.Holder{vault.FormerFile(file)}
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
	return probe.Look(ctx, a.opt.Program, path, a.log)
}
