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
	"fulmar/fleet/registry"
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

// Pending lists the boards that ask to join.
func (s *Site) Pending(ctx context.Context) (out []registry.Request, err error) {
	reg, err := registry.Open(s.fleetDir())
	if err != nil {
		return nil, err
	}
	out, err = reg.Pending(ctx, registry.DefaultTenant)
	return out, errors.Join(err, reg.Close())
}

// Approve lets the board of a request in, as a person at the server would.
func (s *Site) Approve(ctx context.Context, id int64) error {
	reg, err := registry.Open(s.fleetDir())
	if err != nil {
		return err
	}
	return errors.Join(reg.Approve(ctx, registry.DefaultTenant, id, "a test"), reg.Close())
}
