// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"fulmar/fleet/store"
	"fulmar/fleet/telemetry"
	"fulmar/fleet/telemetry/remote"
	"fulmar/fleet/telemetry/scope"
	"fulmar/fleet/telemetry/targets"
	"fulmar/schema"
)

// server is Debian's Prometheus.
type server struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// need leaves a test out where a program of Debian's package prometheus is missing; in CI
// it has to be there.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no %s: cross/need prometheus", program)
		}
		t.Skipf("no %s: type apt-get install --no-install-recommends prometheus", program)
	}
}

func prometheus(t *testing.T, scrape string) *server {
	t.Helper()
	need(t, "prometheus")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: t.TempDir(), addr: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	config := "storage: {tsdb: {out_of_order_time_window: 30d}}\n" + scrape
	if err := os.WriteFile(filepath.Join(s.dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command("prometheus", "--config.file="+filepath.Join(s.dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(s.dir, "data"),
		"--web.listen-address="+s.addr, "--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=60d")
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.until("ready", func() bool {
		res, err := http.Get("http://" + s.addr + "/-/ready")
		if err != nil {
			return false
		}
		return res.Body.Close() == nil && res.StatusCode == 200
	})
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) until(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if ok() {
			return
		}
	}
	s.t.Fatalf("not %s in 30 s; prometheus says\n%s", what, s.log.String())
}

type series struct {
	Metric map[string]string
	Value  [2]any
	Values [][2]any
}

func (s *server) query(expr string, at time.Time) []series {
	s.t.Helper()
	return query(s.t, http.DefaultClient, "http://"+s.addr, expr, at)
}

func query(t *testing.T, c *http.Client, base, expr string, at time.Time) []series {
	t.Helper()
	res, err := c.Get(base + "/api/v1/query?" + url.Values{"query": {expr}, "time": {strconv.FormatInt(at.Unix(), 10)}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a struct{ Data struct{ Result []series } }
	if err := json.Unmarshal(b, &a); err != nil || res.StatusCode != 200 {
		t.Fatalf("%s: %d %s", expr, res.StatusCode, b)
	}
	return a.Data.Result
}

const boards, rounds = 3, 700

// fill adds rounds readings of each board, from the given moment on.
func fill(t *testing.T, db *store.DB, at time.Time, every time.Duration) {
	t.Helper()
	tx, err := db.Write.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := range rounds {
		for b := 1; b <= boards; b++ {
			x := at.Add(time.Duration(i) * every).UnixMilli()
			raw, err := schema.Encode(&schema.Samples{Series: []string{"thermal.cpu_celsius", "load.1m"}, Value: []float64{float64(x%100_000) / 7, float64(i) * 0.1}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(`INSERT INTO telemetry (board, at, arrived, payload) VALUES (?, ?, ?, ?)`, b, x, time.Now().UnixMilli(), raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// Prometheus gets each sample of the ledger, once: those that it was down for, those that
// come late, and those given again after a crash of the fleet.
func TestRemoteWrite(t *testing.T) {
	t.Parallel()
	p := prometheus(t, "")
	db, err := store.OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // of a test
	for b := 1; b <= boards; b++ {
		if _, err := db.Write.Exec(`INSERT INTO board (id, tenant, name) VALUES (?, 'a', ?)`, b, fmt.Sprintf("dock-%d", b)); err != nil {
			t.Fatal(err)
		}
	}
	cfg := telemetry.Config{Every: time.Second, RemoteWrite: []remote.Config{{Name: "debian", URL: "http://" + p.addr + "/api/v1/write"}}}
	src := telemetry.Sources{Ledger: db.Read, Boards: func(context.Context, string) ([]telemetry.BoardState, error) {
		return []telemetry.BoardState{{Name: "dock-1", State: "healthy", Up: true}}, nil
	}}
	dir := t.TempDir()
	run := func() (d *telemetry.DB, stop func()) {
		t.Helper()
		d, err := telemetry.Open(dir, cfg, src, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		return d, func() {
			t.Helper()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	now := time.Now().Truncate(time.Second)
	has := func(n int) func() bool {
		return func() bool {
			v := p.query(`sum(count_over_time({series!=""}[28d]))`, now)
			return len(v) == 1 && v[0].Value[1] == strconv.Itoa(n)
		}
	}
	each := boards * rounds * 2

	p.start()
	fill(t, db, now.Add(-time.Hour), time.Second)
	_, stop := run()
	p.until("there", has(each))
	p.kill() // without a word, as a power cut
	fill(t, db, now.Add(-30*time.Minute), time.Second)
	fill(t, db, now.AddDate(0, 0, -20), time.Minute) // a backlog of days
	time.Sleep(1500 * time.Millisecond)              // it tries, and fails
	p.start()
	p.until("there after the outage", has(3*each))
	stop()
	// A crash of the fleet: its word that all was sent is lost, and it is sent again.
	if err := os.Remove(filepath.Join(dir, "remote-debian")); err != nil {
		t.Fatal(err)
	}
	d, stop := run()
	defer stop()
	p.until("read again", func() bool { s := d.Stats(); return s.Behind == 0 && sent(t, d) >= float64(3*each) })
	if !has(3 * each)() {
		t.Error("more samples than were made, or fewer")
	}
	compare(t, p, d, now)
}

// sent tells how many samples the receiver took, as /metrics has it.
func sent(t *testing.T, d *telemetry.DB) float64 {
	t.Helper()
	all, err := d.Collectors().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "fulmar_remote_write_samples_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("not on /metrics")
	return 0
}

// compare holds each sample there to the one here.
func compare(t *testing.T, p *server, d *telemetry.DB, now time.Time) {
	t.Helper()
	for _, m := range []string{"fulmar_thermal_celsius", "fulmar_load"} {
		for b := 1; b <= boards; b++ {
			sel := fmt.Sprintf(`%s{board="dock-%d"}`, m, b)
			there := p.query(sel+"[28d]", now)
			if len(there) != 1 || len(there[0].Values) != 3*rounds {
				t.Fatalf("%s: %d series there", sel, len(there))
			}
			for _, fn := range []string{"sum", "min", "max", "count", "stddev"} {
				expr := fmt.Sprintf(`%s_over_time(%s[28d])`, fn, sel)
				here, err := d.Instant(t.Context(), "a", expr, now)
				if err != nil || len(here) != 1 {
					t.Fatalf("%s here: %v %v", expr, here, err)
				}
				other, err := strconv.ParseFloat(p.query(expr, now)[0].Value[1].(string), 64)
				if diff := other - here[0].Value; err != nil || diff > 1e-6 || diff < -1e-6 {
					t.Errorf("%s: here %v, there %v", expr, here[0].Value, other)
				}
			}
			if l := there[0].Metric; l["tenant"] != "a" || l["series"] == "" {
				t.Errorf("labels there: %v", l)
			}
		}
	}
}

// Prometheus takes the list of boards and scrapes them.
func TestTargets(t *testing.T) {
	t.Parallel()
	serve := func(h http.Handler) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
		go s.Serve(l) //nolint:errcheck // closed below
		t.Cleanup(func() { _ = s.Close() })
		return l.Addr().String()
	}
	board := serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, "fulmar_build_info{version=\"1\"} 1\n")
	}))
	sd := serve(targets.Handler(func(context.Context) (string, []targets.Board, error) {
		return "a", []targets.Board{
			{Name: "dock-1", Site: "north", Labels: map[string]string{targets.Label: board, "line": "4"}},
			{Name: "dock-2", Labels: map[string]string{targets.Label: "http://" + board + "/metrics"}}, // no host:port
			{Name: "dock-3"},
		}, nil
	}))
	p := prometheus(t, fmt.Sprintf("scrape_configs: [{job_name: boards, scrape_interval: 1s, http_sd_configs: [{url: 'http://%s/', refresh_interval: 1s}]}]", sd))
	p.start()
	p.until("scraped", func() bool { return len(p.query(`fulmar_build_info`, time.Now())) > 0 })
	got := p.query(`up`, time.Now())
	if len(got) != 1 || got[0].Value[1] != "1" || got[0].Metric["board"] != "dock-1" || got[0].Metric["site"] != "north" || got[0].Metric["label_line"] != "4" {
		t.Errorf("%+v", got)
	}
}

// promtool, a client that is not ours, asks the fleet's own API as it would Prometheus.
func TestPromtool(t *testing.T) {
	t.Parallel()
	need(t, "promtool")
	db, err := store.OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // of a test
	if _, err := db.Write.Exec(`INSERT INTO board (id, tenant, name) VALUES (1, 'a', 'dock-1')`); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	fill(t, db, at, time.Second)
	d, err := telemetry.Open(t.TempDir(), telemetry.Config{}, telemetry.Sources{Ledger: db.Read}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // of a test
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for end := time.Now().Add(20 * time.Second); d.Stats().Appended < 2*rounds; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not fed in 20 s")
		}
	}
	const prefix = "/api/v1/prometheus"
	h := http.StripPrefix(prefix, d.Handler())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(scope.With(r.Context(), scope.Scope{Tenant: "a"})))
	}))
	defer s.Close()
	begin, end := strconv.FormatInt(at.Unix(), 10), strconv.FormatInt(at.Unix()+600, 10)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"=> 601 @", []string{"instant", "--time=" + end, s.URL + prefix, "count_over_time(fulmar_load[11m])"}},
		{"60 @", []string{"range", "--start=" + begin, "--end=" + end, "--step=1m", s.URL + prefix, "max(fulmar_load)"}},
		{`board="dock-1"`, []string{"series", "--match=fulmar_load", "--start=" + begin, "--end=" + end, s.URL + prefix}},
		{"dock-1", []string{"labels", "--start=" + begin, "--end=" + end, s.URL + prefix, "board"}},
	} {
		out, err := exec.Command("promtool", append([]string{"query"}, c.args...)...).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(c.want)) {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}
