// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fulmar/tests/local"
	"fulmar/tpm/tpmtest"
)

// The bounds of DESIGN 3. Measured values are in docs/benchmarks.md.
const (
	maxRSS    = 16 << 20
	maxAnon   = 8 << 20
	maxBinary = 15 << 20 // arm64, stripped
)

// busy is 40 made-up series each second beside the host's own sensors.
const busy = `sensors: {synthetic: 40}
infer: {mode: "off"}
`

// TestMemory: 40 sensors each second, MQTT over TLS, spool and /metrics scraped
// each second, as in DESIGN 3; with the board's keys in a file, and in a TPM.
func TestMemory(t *testing.T) {
	t.Run("software", func(t *testing.T) { memory(t, "") })
	t.Run("tpm", func(t *testing.T) { memory(t, tpmtest.Start(t).Path()) })
}

func memory(t *testing.T, tpm string) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "bin/fulmard")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v; run: make build", err)
		}
		t.Skipf("%v; run: make build", err)
	}
	s, err := local.New(t.TempDir(), filepath.Join(root, "bin"), "/none")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Fleet.Kill() })
	config, err := s.PrepareBoard(local.Board{Name: "dock-1", Extra: busy, NoInfer: true, TPM: tpm})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.StartBoard("dock-1", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if tpm != "" {
		finger, err := s.Waiting(t.Context(), "dock-1")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Admit(t.Context(), "dock-1", finger); err != nil {
			t.Fatal(err)
		}
	}
	client := socketClient(filepath.Join(s.BoardDir("dock-1"), "status.sock"))
	var before, u local.Usage
	const seconds = 30
	for i := range seconds {
		time.Sleep(time.Second)
		if resp, err := client.Get("http://board/metrics"); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		} else if i > 5 {
			t.Fatalf("scrape: %v\n%s", err, p.Output())
		}
		if i == 9 {
			before, _ = local.UsageOf(p.PID())
		}
	}
	if u, err = local.UsageOf(p.PID()); err != nil {
		t.Fatal(err)
	}
	cpu := 100 * (u.CPU - before.CPU).Seconds() / (seconds - 10)
	t.Logf("RSS %.1f MB (bound 16, goal 12), RssAnon %.1f MB (bound 8, goal 6), CPU %.2f %% of a core with a scrape a second",
		float64(u.RSS)/1e6, float64(u.Anon)/1e6, cpu)
	if h, err := s.Health(t.Context(), "dock-1"); err != nil || h.Link != "up" {
		t.Errorf("the board is not connected: %+v, %v", h, err)
	}
	if u.RSS > maxRSS || u.Anon > maxAnon {
		t.Errorf("RSS %d, RssAnon %d bytes: over the bounds %d and %d", u.RSS, u.Anon, maxRSS, maxAnon)
	}
}

func socketClient(path string) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

// TestBinary: fulmard for the board is static and small.
func TestBinary(t *testing.T) {
	out := filepath.Join(t.TempDir(), "fulmard")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", out, "fulmar/cmd/fulmard")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=arm64")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	st, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("fulmard for arm64: %.1f MB (bound 15)", float64(st.Size())/1e6)
	if st.Size() > maxBinary {
		t.Errorf("%d bytes, at most %d", st.Size(), maxBinary)
	}
}
