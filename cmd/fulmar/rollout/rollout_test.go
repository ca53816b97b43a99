// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"fulmar/cmd/fulmar/fault"
	"fulmar/internal/cli"
	"fulmar/schema/rest"
)

// desk is a person with fulmar and a server that speaks as the API does. The real one
// is asked in tests/cli.
type desk struct {
	t    *testing.T
	args []string

	mu   sync.Mutex
	show []rest.Rollout // what is told next; the last one for ever
	sent map[string]json.RawMessage
	tags map[string]string // If-Match by path
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, sent: map[string]json.RawMessage{}, tags: map[string]string{}}
	s := httptest.NewTLSServer(d)
	t.Cleanup(s.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("fk1_x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(s.Certificate().Raw)
	d.args = []string{"--fleet", s.Listener.Addr().String(), "--token-file", token, "--pin", hex.EncodeToString(sum[:])}
	return d
}

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Method == http.MethodPost {
		b, _ := io.ReadAll(r.Body)
		d.sent[r.URL.Path], d.tags[r.URL.Path] = b, r.Header.Get("If-Match")
	}
	if r.URL.Path == "/api/v1/forecast" {
		at := time.Date(2026, 11, 26, 4, 30, 0, 0, time.UTC)
		_ = json.NewEncoder(w).Encode(rest.Forecast{
			Boards: 120, Sentence: "120 boards, done about Thu 04:30.", LeftOut: []rest.LeftOut{{Reason: "unreachable", Boards: 14}},
			Waves: []rest.ForecastWave{{Wave: rest.Wave{N: 1, Boards: 20, Sites: 5, SoakS: 600, Halts: 2, Proves: "20 of 20: at least 86.1 %"}, Starts: &at}},
		})
		return
	}
	if strings.Contains(r.URL.Path, "r-404") {
		w.WriteHeader(404)
		return
	}
	w.Header().Set("ETag", `"7"`)
	_ = json.NewEncoder(w).Encode(d.show[0])
	if len(d.show) > 1 {
		d.show = d.show[1:]
	}
}

func (d *desk) run(args ...string) (out, talk string, err error) {
	var o, e bytes.Buffer
	root := cli.Root(&cobra.Command{Use: "fulmar"}, "test")
	root.AddCommand(Command())
	_, err = cli.Execute(context.Background(), root, slices.Concat([]string{"rollout"}, args, d.args), &o, &e)
	return o.String(), e.String(), err
}

// must holds the end of a command to a code, "" for none; it is written as the line
// that fulmar ends with.
func (d *desk) must(err error, line string) {
	d.t.Helper()
	row, ok := fault.Of(err)
	got := ""
	if ok {
		got = "[" + string(row.Code) + "]\n"
	}
	if got != line || err != nil && !ok {
		d.t.Errorf("%v ends with %q, wants %q", err, got, line)
	}
}

// TestPlan: a plan in a file and options over it reach the fleet as they are meant.
func TestPlan(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.show = []rest.Rollout{{ID: "r-1", Sentence: "Planned."}}
	plan := filepath.Join(t.TempDir(), "plan.yaml")
	text := `release: v7
component: model/forklift
q: ignored
`
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := d.run("plan", "--file", plan)
	d.must(err, "[FLT0001]\n") // a word that is none is not swallowed
	text = `release: v7
component: model/forklift
query: site=hall-4
gate: {gate: 0.99, min_failures: 3}
guards:
  - {name: fps, expr: avg by (board) (fps), better: higher, tolerance: 0.05}
windows: [{days: [mon, tue], from: "22:00", to: "05:00", zone: site}]
waves: [{count: 5, soak_s: 60}]
`
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, talk, err := d.run("plan", "--file", plan, "-q", "site=hall-5", "--wave", "20/10m", "--wave", "2.5%/1h", "--per-site", "3")
	d.must(err, "")
	if !strings.Contains(out, "20 of 20: at least 86.1 %") || !strings.Contains(out, "left out   14  unreachable") || !strings.Contains(talk, "nothing has been changed") {
		t.Error(out, talk)
	}
	var s rest.RolloutSpec
	if err := json.Unmarshal(d.sent["/api/v1/forecast"], &s); err != nil {
		t.Fatal(err)
	}
	if s.Query != "site=hall-5" || s.Release != "v7" || s.Gate.Gate != 0.99 || s.Gate.MinFailures != 3 || s.PerSite != 3 || len(s.Guards) != 1 || s.Guards[0].Tolerance != 0.05 || s.Windows[0].From != "22:00" {
		t.Errorf("%+v", s)
	}
	if len(s.Waves) != 2 || s.Waves[0] != (rest.WaveSpec{Count: 20, SoakS: 600}) || s.Waves[1] != (rest.WaveSpec{Percent: 2.5, SoakS: 3600}) {
		t.Errorf("%+v", s.Waves)
	}
	out, talk, err = d.run("create", "--file", plan)
	d.must(err, "")
	if out != "r-1\n" || !strings.Contains(talk, "next: fulmar rollout start r-1") {
		t.Error(out, talk)
	}
	for _, wave := range []string{"0/10m", "x", "200%", "5/1", "-1", "5/-1m", "%/1h"} {
		_, _, err := d.run("plan", "--file", plan, "--wave", wave)
		d.must(err, "[FLT0001]\n")
	}
	_, _, err = d.run("plan", "--release", "v7")
	d.must(err, "[FLT0001]\n")
}

// TestActions: a decision says which version it is about, and why. What is to be done stands
// in the path alone: the API refuses a body that says it again.
func TestActions(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.show = []rest.Rollout{{ID: "r-1", State: "wave", Sentence: "Wave 1."}}
	for _, a := range actions() {
		args := []string{a.do, "r-1", "--why", "because"}
		if a.do == rest.RolloutRetry {
			args = append(args, "--without", "fact.dla=on")
		}
		_, talk, err := d.run(args...)
		d.must(err, "")
		path := "/api/v1/rollouts/r-1/" + a.do
		var got rest.RolloutAction
		if json.Unmarshal(d.sent[path], &got) != nil || got.Do != "" || got.Why != "because" || d.tags[path] != `"7"` || !strings.Contains(talk, "/rollouts/r-1") {
			t.Errorf("%s: %+v, If-Match %s, %s", a.do, got, d.tags[path], talk)
		}
	}
	_, _, err := d.run("pause", "r-404")
	d.must(err, "[FLT0309]\n")
}

// TestWatch: it ends as soon as the answer is known, each end with its own code.
func TestWatch(t *testing.T) {
	t.Parallel()
	at := time.Now()
	step := rest.RolloutStep{At: at.Add(time.Second), To: "wave", Say: "dock-17 failed"}
	wave := rest.Rollout{ID: "r-1", State: "wave", Since: at, Wave: 1, Waves: []rest.Wave{{N: 1, Boards: 20, Counts: map[string]int{"good": 4, "installing": 16}}}}
	later := wave
	later.Steps = []rest.RolloutStep{step}
	end := func(state string) rest.Rollout {
		r := later
		r.State, r.Sentence, r.Do = state, "3 of 20 failed", "fulmar rollout retry r-1"
		return r
	}
	for state, line := range map[string]string{
		"done":        "",
		"halted":      "[FLT0312]\n",
		"rolled-back": "[FLT0312]\n",
		"aborted":     "[FLT0310]\n",
		"approval":    "[FLT0313]\n",
		"held":        "[FLT0314]\n",
	} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.show = []rest.Rollout{wave, later, end(state)}
			_, talk, err := d.run("watch", "r-1")
			d.must(err, line)
			if !strings.Contains(talk, "####................  4/20  16 installing") || strings.Count(talk, "dock-17 failed") != 1 {
				t.Error(talk)
			}
		})
	}
	t.Run("timeout", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.show = []rest.Rollout{wave}
		_, _, err := d.run("watch", "r-1", "--timeout", "100ms")
		d.must(err, "[FLT0311]\n")
	})
}
