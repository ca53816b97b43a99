// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/agent/identity"
	"fulmar/fleet/proof"
	"fulmar/fleet/registry"
	"fulmar/schema"
	"fulmar/tests/local"
	"fulmar/tpm/tpmtest"
)

// bare is a board without a worker, so that these tests take seconds.
const bare = `infer: {mode: "off"}
sensors: {synthetic: 3}
`

// house is a fleet for boards with TPMs.
type house struct {
	t *testing.T
	*local.Site
	api, admin *local.API
}

func newHouse(t *testing.T) *house {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"bin/fulmard", "bin/fulmar-fleet"} {
		if _, err := os.Stat(filepath.Join(root, p)); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v; run: make build", err)
			}
			t.Skipf("%v; run: make build", err)
		}
	}
	tpmtest.Need(t, "swtpm")
	dir, err := os.MkdirTemp("", "e2e") // the boards' sockets have at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := local.New(dir, filepath.Join(root, "bin"), "/none")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Fleet.Kill() })
	t.Cleanup(func() { keepLogs(t, s) })
	api, err := s.API()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := s.Admin()
	if err != nil {
		t.Fatal(err)
	}
	return &house{t, s, api, admin}
}

// start starts a board with a TPM, which knows the fleet by its pin alone.
func (h *house) start(name, tpm string) *local.Proc {
	h.t.Helper()
	config, err := h.PrepareBoard(local.Board{Name: name, Extra: bare, NoInfer: true, TPM: tpm})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.run(name, config)
}

func (h *house) run(name, config string) *local.Proc {
	h.t.Helper()
	p, err := h.StartBoard(name, config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(p.Kill)
	return p
}

func (h *house) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(h.Dir, "dock-1.log"))
			h.t.Fatalf("did not come: %s\n%s", what, log)
		}
	}
}

// asked waits until a board asks to join.
func (h *house) asked(why registry.Reason) (q local.Request) {
	h.t.Helper()
	h.until("a board that asks because of "+string(why), func() bool {
		all, err := h.admin.Requests(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if len(all) == 0 {
			return false
		}
		q = all[len(all)-1]
		return q.Why == string(why) && q.Decision == ""
	})
	return q
}

// admit lets the board in that asks.
func (h *house) admit(why registry.Reason) local.Request {
	h.t.Helper()
	q := h.asked(why)
	if err := h.admin.Approve(h.t.Context(), q.ID); err != nil {
		h.t.Fatal(err)
	}
	return q
}

// state is what a board says of itself.
func (h *house) state(name string) (link string, id identity.State, causes string) {
	s, err := h.Health(h.t.Context(), name)
	if err != nil || s.Identity == nil {
		return "", "", fmt.Sprint(err)
	}
	return s.Link, s.Identity.State, strings.Join(s.Causes, "\n")
}

// arrived tells how many batches of samples of a board are at the fleet.
func (h *house) arrived(name string) (n uint64) {
	b, err := h.api.Board(h.t.Context(), name)
	if err != nil {
		return 0
	}
	for _, l := range b.Ledger {
		if l.Class == "metric" {
			n += l.Arrived
		}
	}
	return n
}

// flows waits until further samples have arrived.
func (h *house) flows(name string) {
	h.t.Helper()
	before := h.arrived(name)
	h.until("samples of "+name, func() bool { return h.arrived(name) >= before+2 })
}

func (h *house) stop(p *local.Proc) {
	h.t.Helper()
	took, err := p.Stop()
	if err != nil {
		h.t.Fatal(err)
	}
	if took > 5*time.Second {
		h.t.Errorf("the stop took %v", took)
	}
}

// TestTPMFromNothing: a board with a TPM and no token goes from nothing to publishing
// over mutual TLS with one approval, and comes back by itself ever after.
func TestTPMFromNothing(t *testing.T) {
	t.Parallel()
	h, chip := newHouse(t), tpmtest.Start(t)
	p := h.start("dock-1", chip.Path())
	q := h.asked(registry.ReasonNew)
	h.until("the board's word that it waits", func() bool {
		s, err := h.Health(t.Context(), "dock-1")
		return err == nil && s.Identity != nil && s.Identity.State == identity.StateApproval && s.Identity.Fingerprint == q.Fingerprint && s.Identity.TPM == "virtual"
	})
	if q.Board != "dock-1" || q.Trust != schema.TrustFirstUse || q.TPM == nil || q.TPM.Kind != "virtual" {
		t.Errorf("the person is shown %+v", q)
	}
	h.admit(registry.ReasonNew)
	h.flows("dock-1")
	s, err := h.Health(t.Context(), "dock-1")
	if err != nil || s.Identity.State != identity.StateEnrolled || s.Identity.Trust != schema.TrustFirstUse || s.Identity.Key != schema.KeyTPM {
		t.Errorf("health %+v, %v", s, err)
	}
	h.until("what it runs, proven", func() bool {
		p, err := h.Proof(t.Context(), "dock-1")
		if err != nil {
			t.Fatal(err)
		}
		r, err := proof.Report(p)
		if err != nil || p.Why != "" {
			t.Fatalf("%s, %v", proof.Say(p.Why), err)
		}
		exe, err := os.ReadFile(filepath.Join(h.Bin, "fulmard"))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(exe)
		return p.Level == proof.Bound && bytes.Equal(r.Program, sum[:]) && r.Kind == "virtual" && r.Rollback == "no"
	})
	for _, name := range []string{"identity/board.key", "spool.key"} {
		if _, err := os.Stat(filepath.Join(h.BoardDir("dock-1"), name)); err == nil {
			t.Errorf("%s: there is a key in a file", name)
		}
	}
	h.stop(p)
	h.start("dock-1", chip.Path())
	h.flows("dock-1")
	if all, err := h.admin.Requests(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("it asked again: %+v, %v", all, err)
	}
}

// TestTPMReplaced: a cleared TPM, and a disk in a board with another one: a person
// decides with the reason before him, and the board goes on under its name. What was
// kept under the old TPM is told as lost.
func TestTPMReplaced(t *testing.T) {
	t.Parallel()
	for name, why := range map[string]registry.Reason{"cleared": registry.ReasonAK, "moved": registry.ReasonEK} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, chip := newHouse(t), tpmtest.Start(t)
			p := h.start("dock-1", chip.Path())
			h.admit(registry.ReasonNew)
			h.flows("dock-1")
			h.stop(p)
			if why == registry.ReasonAK {
				tpmtest.Need(t, "tpm2_clear")
				cmd := exec.Command("tpm2_clear", "-c", "l")
				cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+chip.Sock)
				if b, err := cmd.CombinedOutput(); err != nil {
					t.Fatal(err, string(b))
				}
			} else {
				chip = tpmtest.Start(t)
			}
			h.start("dock-1", chip.Path())
			q := h.asked(why)
			time.Sleep(2 * time.Second) // what the API shows may be a second old
			before := h.arrived("dock-1")
			time.Sleep(2 * time.Second)
			if n := h.arrived("dock-1"); n != before {
				t.Errorf("%d samples arrived before anybody let it in", n-before)
			}
			if err := h.admin.Approve(t.Context(), q.ID); err != nil {
				t.Fatal(err)
			}
			h.flows("dock-1")
			h.until("the board's word on its TPM", func() bool {
				b, err := h.api.Board(t.Context(), "dock-1")
				if err != nil {
					return false
				}
				said := ""
				for _, r := range b.Reports {
					said += r.Subject + " " + r.State + "; "
				}
				return strings.Contains(said, "tpm replaced") && strings.Contains(said, "spool_key lost")
			})
		})
	}
}

// TestTPMCloned: a copy of a board's disk in another board cannot be this board. The
// first goes on, the second waits for a person.
func TestTPMCloned(t *testing.T) {
	t.Parallel()
	h, chip := newHouse(t), tpmtest.Start(t)
	p := h.start("dock-1", chip.Path())
	h.admit(registry.ReasonNew)
	h.flows("dock-1")
	h.stop(p)
	if b, err := exec.Command("cp", "-a", h.BoardDir("dock-1"), h.BoardDir("clone")).CombinedOutput(); err != nil {
		t.Fatal(err, string(b))
	}
	h.start("dock-1", chip.Path())
	// The clone's config names the same board, with the copy of its disk.
	b, err := os.ReadFile(filepath.Join(h.Dir, "dock-1.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(b), h.BoardDir("dock-1"), h.BoardDir("clone")), chip.Path(), tpmtest.Start(t).Path())
	config := filepath.Join(h.Dir, "clone.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.run("clone", config)
	h.asked(registry.ReasonEK)
	h.until("the clone's word that it waits", func() bool { _, id, _ := h.state("clone"); return id == identity.StateApproval })
	for range 2 {
		h.flows("dock-1")
		if link, id, causes := h.state("dock-1"); link != "up" || id != identity.StateEnrolled {
			t.Errorf("the first board is %s, %s: %s", link, id, causes)
		}
	}
}

// TestTPMHangs: the TPM hangs after the start. What is connected stays so; after an
// outage the board cannot come back, samples and keeps; when the TPM answers again all
// of it arrives.
func TestTPMHangs(t *testing.T) {
	t.Parallel()
	h, proxy := newHouse(t), tpmtest.Between(t, tpmtest.Start(t))
	var hang atomic.Pointer[chan struct{}]
	proxy.Answer = func([]byte) ([]byte, bool) {
		if c := hang.Load(); c != nil {
			<-*c
			return nil, false
		}
		return nil, true
	}
	p := h.start("dock-1", proxy.Path())
	h.admit(registry.ReasonNew)
	h.flows("dock-1")
	free := make(chan struct{})
	hang.Store(&free)
	h.flows("dock-1")
	h.Fleet.Kill()
	if err := h.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.until("the link's trouble", func() bool {
		link, _, causes := h.state("dock-1")
		return link != "up" && strings.Contains(causes, "the TPM did not answer in time")
	})
	ticks := func() float64 {
		return metric(t, filepath.Join(h.BoardDir("dock-1"), "status.sock"), "fulmar_schedule_ticks_total")
	}
	before := ticks()
	h.until("sampling", func() bool { return ticks() >= before+2 })
	hang.Store(nil)
	close(free)
	h.flows("dock-1")
	h.stop(p)
	b, err := h.api.Books(t.Context(), "dock-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range b.Ledger {
		if l.Made != l.Arrived || l.Waiting != 0 {
			t.Errorf("class %s: %d made, %d arrived, %d lost, %d waiting", l.Class, l.Made, l.Arrived, l.Lost, l.Waiting)
		}
	}
}

// TestTPMGone: an enrolled board starts without its TPM. It is nobody, samples, says
// why, and makes no key in a file; when the TPM is back it is who it was.
func TestTPMGone(t *testing.T) {
	t.Parallel()
	h, chip := newHouse(t), tpmtest.Start(t)
	p := h.start("dock-1", chip.Path())
	h.admit(registry.ReasonNew)
	h.flows("dock-1")
	h.stop(p)
	chip.Kill()
	_ = os.Remove(chip.Sock)
	h.start("dock-1", chip.Path())
	h.until("tpm_missing", func() bool {
		link, id, causes := h.state("dock-1")
		return link == "tpm_missing" && id == identity.StateNoTPM && strings.Contains(causes, "records stay in memory")
	})
	sock := filepath.Join(h.BoardDir("dock-1"), "status.sock")
	h.until("samples in memory", func() bool { return metric(t, sock, `fulmar_spool_memory_records{class="metric"}`) >= 2 })
	if _, err := os.Stat(filepath.Join(h.BoardDir("dock-1"), "identity", "board.key")); err == nil {
		t.Error("a key in a file was made")
	}
	chip.Run(t)
	h.flows("dock-1")
	if all, err := h.admin.Requests(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("it asked for approval: %+v, %v", all, err)
	}
}

// metric reads one number off a board's status socket; -1 where it is not there.
func metric(t *testing.T, sock, name string) float64 {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", sock)
		},
	}}
	resp, err := client.Get("http://board/metrics")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
	}
	return -1
}
