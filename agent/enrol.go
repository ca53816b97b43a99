// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"fulmar/agent/anchor"
	"fulmar/agent/config"
	"fulmar/agent/identity"
	"fulmar/agent/tally"
	"fulmar/device"
	"fulmar/inference/worker"
	"fulmar/schema"
)

// enroller is the way to an identity under this config.
func (a *Agent) enroller(cfg *config.Config) *identity.Enroller {
	pin, _ := cfg.Fleet.PinHash() // validated
	return &identity.Enroller{
		Dir: cfg.IdentityDir(), Fleet: cfg.Fleet.Address, TokenFile: cfg.Fleet.TokenFile, Pin: pin,
		Board: cfg.Board, Facts: a.facts, Mode: cfg.Key.Mode, Required: cfg.TPM.Required, Chip: a.chip,
		Clock: func() (time.Time, bool) { return time.Now(), anchor.Synced() },
		Log:   a.log.With("part", "enrol"), Say: a.identityIs, Replaced: a.keysReplaced, KeySet: a.control.Learn,
	}
}

// uptime is the time since the machine started; where it cannot be read, long ago.
func uptime() time.Duration {
	d, err := device.BootMono()
	if err != nil {
		return time.Hour
	}
	return d
}

// identityIs notes where the board stands with its identity, and tells the fleet what
// it should know of it once it can.
func (a *Agent) identityIs(s identity.Status) {
	a.status.mu.Lock()
	a.status.identity = s
	a.status.mu.Unlock()
	switch s.State {
	case identity.StateEnrolled:
		text := "the board's key is in its TPM"
		if s.Mode == schema.KeySoftware {
			text = "the board's key is a file that can be copied"
		}
		a.say("identity", string(s.State), schema.SeverityInfo, text)
		return
	case identity.StateNoTPM, identity.StateTPM:
		a.say("identity", string(s.State), schema.SeverityAlarm, "the board's key cannot be used: "+s.Err.Error())
	}
	a.setLink(string(s.State), s.Err)
}

// keysReplaced tells that the board's keys were of another TPM.
func (a *Agent) keysReplaced(why error) {
	a.say("tpm", "replaced", schema.SeverityAlarm, "the board has another TPM than before, or it was cleared; it got new keys and asked the fleet anew: "+why.Error())
}

// attest answers a nonce of the fleet.
func (a *Agent) attest(ctx context.Context, nonce []byte) ([]byte, error) {
	p := a.identity.Load().Prover()
	if p == nil {
		return nil, errors.New("this board's key is in no TPM")
	}
	b, err := a.attestor.Answer(ctx, p, nonce)
	a.status.mu.Lock()
	defer a.status.mu.Unlock()
	if err != nil {
		a.status.attestFailed++
	} else {
		a.status.attested++
	}
	return b, err
}

// workerModels tells the models as the worker last did.
func (a *Agent) workerModels() []worker.ModelStatus {
	a.status.mu.Lock()
	defer a.status.mu.Unlock()
	return a.status.worker.Models
}

// IdentityHealth is the board's identity in /healthz.
type IdentityHealth struct {
	State identity.State `json:"state"`
	Key   string         `json:"key,omitempty"` // tpm, software
	TPM   string         `json:"tpm,omitempty"` // discrete, firmware, virtual, unknown
	Trust string         `json:"trust,omitempty"`
	// Fingerprint is what a person compares with the page before letting the board in.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Refusal is the fleet's code where it said no: "token", "revoked", ...
	Refusal string `json:"refusal,omitempty"`
}

func (a *Agent) identityHealth() *IdentityHealth {
	a.status.mu.Lock()
	s := a.status.identity
	a.status.mu.Unlock()
	if s.State == "" {
		return nil // a board without a fleet of ours
	}
	h := &IdentityHealth{State: s.State, Key: s.Mode, Fingerprint: s.Fingerprint, Refusal: s.Refusal}
	if i, ok := a.chip.Known(); ok {
		h.TPM = i.Kind
	}
	if id := a.identity.Load(); id != nil {
		h.Trust = id.Trust
	}
	return h
}

func (a *Agent) collectIdentity(gauge tally.Gauge, counter tally.Counter) {
	a.status.mu.Lock()
	s, good, bad := a.status.identity, a.status.attested, a.status.attestFailed
	a.status.mu.Unlock()
	if s.State == "" {
		return
	}
	for _, state := range identity.States() {
		v := 0.0
		if s.State == state {
			v = 1
		}
		gauge("identity_state", "1 for where the board stands with its identity.", v, "state", string(state))
	}
	i, known := a.chip.Known()
	switch {
	case s.Mode == schema.KeySoftware:
		gauge("tpm_info", "1, with who holds the board's key as a label.", 1, "provider", schema.KeySoftware, "maker", "", "firmware", "")
	case known:
		gauge("tpm_info", "1, with who holds the board's key as a label.", 1, "provider", i.Kind, "maker", i.Maker, "firmware", i.Firmware)
	}
	counter("attestations_total", "Questions of the fleet for an attestation.", good, "result", "answered")
	counter("attestations_total", "Questions of the fleet for an attestation.", bad, "result", "failed")
}
