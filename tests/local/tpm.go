// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"fulmar/agent"
	"fulmar/agent/identity"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/proofs"
)

// StartTPM starts a software TPM for a board and gives what tpm.path of its config is
// called. Its state lies beside the board's folder and outlives it.
func (s *Site) StartTPM(name string) (p *Proc, path string, err error) {
	if _, err := exec.LookPath("swtpm"); err != nil {
		return nil, "", errors.New("swtpm is missing; type: cross/need swtpm")
	}
	state := s.BoardDir(name) + ".tpm"
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp("/tmp", "fulmar-tpm") // a socket's path has at most 108 bytes
	if err != nil {
		return nil, "", err
	}
	sock := filepath.Join(dir, "s")
	log, err := openLog(filepath.Join(s.Dir, name+".tpm.log"))
	if err != nil {
		return nil, "", err
	}
	p, err = start("swtpm", "swtpm", log, "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--server", "type=unixio,path="+sock+",mode=0600", "--flags", "not-need-init,startup-clear")
	if err != nil {
		return nil, "", err
	}
	go func() { <-p.Done(); _ = os.RemoveAll(dir) }()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", sock); err == nil {
			_ = c.Close()
			return p, "unix:" + sock, nil
		}
		select {
		case <-p.Done():
			return nil, "", fmt.Errorf("swtpm ended at start:\n%s", p.Output())
		default:
		}
		if time.Now().After(end) {
			p.Kill()
			return nil, "", errors.New("swtpm does not answer")
		}
	}
}

// Health asks a board how it is.
func (s *Site) Health(ctx context.Context, name string) (*agent.Health, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.BoardDir(name), "status.sock"))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://board/healthz", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	h := new(agent.Health)
	return h, json.NewDecoder(resp.Body).Decode(h)
}

// Waiting waits until a board has asked to join, and gives its own word of its
// fingerprint, which a person compares; "" where it is in already.
func (s *Site) Waiting(ctx context.Context, name string) (fingerprint string, err error) {
	for {
		h, err := s.Health(ctx, name)
		if err == nil && h.Identity != nil {
			switch h.Identity.State {
			case identity.StateEnrolled:
				return "", nil
			case identity.StateApproval:
				return h.Identity.Fingerprint, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s does not ask to join: %+v, %w", name, h, errors.Join(err, ctx.Err()))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Admit lets a board in as a person with an administrator's token would: the fleet must
// show the fingerprint that the board does.
func (s *Site) Admit(ctx context.Context, name, fingerprint string) error {
	api, err := s.Admin()
	if err != nil {
		return err
	}
	all, err := api.Requests(ctx)
	if err != nil {
		return err
	}
	for _, q := range all {
		if q.Board == name && q.Fingerprint == fingerprint {
			return api.Approve(ctx, q.ID)
		}
	}
	return fmt.Errorf("the fleet shows no request of %s with the fingerprint %s: %+v", name, fingerprint, all)
}

// Proof is what the fleet holds of a board's newest attestation.
func (s *Site) Proof(ctx context.Context, name string) (p proofs.Proof, err error) {
	reg, err := registry.Open(s.fleetDir())
	if err != nil {
		return p, err
	}
	p, err = reg.Proofs().Get(ctx, registry.DefaultTenant, name)
	return p, errors.Join(err, reg.Close())
}
