// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/cmd/fulmar/fault"
	"fulmar/schema"
	"fulmar/storage"
	"fulmar/storage/vault"
)

const (
	exitGood  = 0
	exitWrong = fault.ExitWrong
	exitUsage = fault.ExitUsage
)

// run runs a command and gives exit code, standard output and standard error.
func run(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = Run(context.Background(), "dev", args, &o, &e)
	return code, o.String(), e.String()
}

// dead is the disk of a board that died: an encrypted spool that was never closed,
// and the two keys that open it.
type dead struct{ dir, key, recovery string }

// deadBoard makes one with 30 batches of two readings, the first 10 acknowledged, a
// summary and 5 events.
func deadBoard(t *testing.T) dead {
	t.Helper()
	keys := t.TempDir()
	if code, out, errs := run("recovery", "new", "--out", keys); code != 0 || !strings.Contains(out, publicName) {
		t.Fatal(code, out, errs)
	}
	pub, err := vault.ReadRecoveryPublic(filepath.Join(keys, publicName))
	if err != nil {
		t.Fatal(err)
	}
	d := dead{dir: t.TempDir(), key: filepath.Join(keys, "spool.key"), recovery: filepath.Join(keys, privateName)}
	holder, err := vault.OpenKeyFile(d.key)
	if err != nil {
		t.Fatal(err)
	}
	live := t.TempDir()
	s, err := storage.Open(storage.Config{Dir: live, Owner: "dock-1", NoSync: true, Holder: holder, Recovery: pub})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := schema.Time{Boot: 1, Mono: int64(time.Hour), Wall: 1_700_000_000_000}
	for n := range 31 {
		body := &schema.Samples{Series: []string{"cpu.load_percent", "gpu.celsius"}, Value: []float64{float64(n) + 0.5, 1}, Quality: []schema.Quality{0, schema.QualityOffline}}
		if n == 30 {
			body = &schema.Samples{Series: []string{"cpu.load_percent"}, Value: []float64{50}, Over: &schema.Over{SpanMs: 60000, Min: []float64{1}, Max: []float64{99}, Count: []uint32{60}}}
		}
		add(t, s, schema.ClassMetric, &schema.Record{Kind: schema.KindSamples, Time: at, Samples: body})
	}
	for range 5 {
		add(t, s, schema.ClassEvent, &schema.Record{Kind: schema.KindEvent, Time: at, Event: &schema.Event{Source: "cam0", Boxes: []schema.Box{{Score: 0.9}}}})
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ack(schema.ClassMetric, s.Cursors()[schema.ClassMetric].Epoch, 1, 10); err != nil {
		t.Fatal(err)
	}
	// The cursor is not on disk: a dead board's is half a second old as well. Close a
	// copy so that it is.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(d.dir, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	return d
}

func add(t *testing.T, s *storage.Spool, c schema.Class, r *schema.Record) {
	t.Helper()
	b, err := schema.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), c, b); err != nil {
		t.Fatal(err)
	}
}

func TestInspectAndVerify(t *testing.T) {
	t.Parallel()
	d := deadBoard(t)
	code, out, errs := run("spool", "inspect", d.dir, "--recovery-key", d.recovery)
	if code != 0 {
		t.Fatal(code, out, errs)
	}
	if !strings.Contains(out, "\nboard dock-1\n") || strings.Contains(out, "not the spool's") {
		t.Errorf("whose spool it is is not told:\n%s", out)
	}
	for class, want := range map[string][]string{"metric": {" 31 ", " 21 "}, "event": {" 5 "}, "alarm": {" 0 "}} {
		i := strings.Index(out, "\n"+class)
		if i < 0 {
			t.Fatalf("no class %s in\n%s", class, out)
		}
		line, _, _ := strings.Cut(out[i+1:], "\n")
		for _, w := range want {
			if !strings.Contains(line, w) {
				t.Errorf("%q does not tell %s", line, w)
			}
		}
	}
	if code, out, errs := run("spool", "verify", d.dir, "--key", d.key); code != 0 {
		t.Error(code, out, errs)
	}
	if code, out, errs := run("spool", "verify", d.dir); code != 1 || !strings.Contains(out, "key") {
		t.Errorf("without a key: %d, %s%s", code, out, errs)
	}
	files, err := filepath.Glob(filepath.Join(d.dir, "event", "*.db"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 2*4096 + 40; i < len(b); i += 64 { // somewhere in each place where a record can be
		b[i] ^= 1
	}
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := run("spool", "verify", d.dir, "--key", d.key); code != 1 || !strings.Contains(out+errs, filepath.Base(files[0])) {
		t.Errorf("damage: %d\n%s%s", code, out, errs)
	}
}

func TestExport(t *testing.T) {
	t.Parallel()
	d := deadBoard(t)
	code, out, errs := run("spool", "export", d.dir, "--recovery-key", d.recovery)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 26 || !strings.Contains(errs, "exported 26 records") {
		t.Fatalf("%d, %d lines, want 21 batches and 5 events: %s", code, len(lines), errs)
	}
	for _, l := range lines {
		var v map[string]any
		if err := json.Unmarshal([]byte(l), &v); err != nil || v["class"] == nil || v["seq"] == nil {
			t.Fatalf("%v: %s", err, l)
		}
	}
	if _, out, _ := run("spool", "export", d.dir, "--key", d.key, "--all", "--class", "metric"); strings.Count(out, "\n") != 31 {
		t.Errorf("%d lines of all metrics, want 31", strings.Count(out, "\n"))
	}
	if code, out, errs := run("spool", "export", d.dir); code != 1 || out != "" || !strings.Contains(errs, "key") {
		t.Errorf("without a key: %d, %q, %s", code, out, errs)
	}
}

func TestExportCSV(t *testing.T) {
	t.Parallel()
	d := deadBoard(t)
	path := filepath.Join(t.TempDir(), "out.csv")
	args := []string{"spool", "export", d.dir, "--format", "csv", "--recovery-key", d.recovery, "--out", path}
	if code, out, errs := run(args...); code != 0 || out != "" {
		t.Fatal(code, out, errs)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
	if err != nil || len(rows) != 1+2*20+1 {
		t.Fatalf("%d rows, want a head, 20 batches of two and a summary: %v", len(rows), err)
	}
	first, last := rows[1], rows[len(rows)-1]
	if got := strings.Join(rows[0], ","); got != "time,series,value,quality,min,max,count" {
		t.Errorf("head %s", got)
	}
	if got := strings.Join(first, "|"); got != "2023-11-14T22:13:20.000Z|cpu.load_percent|10.5|good|||" {
		t.Errorf("first row %s", got)
	}
	if got := strings.Join(rows[2][1:4], "|"); got != `gpu.celsius||offline` {
		t.Errorf("a reading that is none: %s", got)
	}
	if got := strings.Join(last[1:], "|"); got != "cpu.load_percent|50|good|1|99|60" {
		t.Errorf("summary %s", got)
	}
	if code, _, errs := run(args...); code != 1 || !strings.Contains(errs, "is there already") {
		t.Errorf("over a file that is there: %d, %s", code, errs)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"", exitUsage, "usage"},
		{"spool", exitUsage, "usage"},
		{"spool inspect", exitUsage, "help"},
		{"spool inspect /none /more", exitUsage, "help"},
		{"spool inspect /none", exitWrong, "/none"},
		{"spool export /none --format xml", exitUsage, "xml"},
		{"spool export /none --format csv --class event", exitUsage, "csv"},
		{"spool export /none --class metrics", exitUsage, "metrics"},
		{"recovery new", exitUsage, "--out"},
		{"recovery id /none", exitWrong, "/none"},
		{"help", exitGood, ""},
		{"version", exitGood, ""},
	} {
		code, out, errs := run(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errs, c.want) || code == exitGood && out == "" {
			t.Errorf("fulmar %s: %d, %q, %q", c.args, code, out, errs)
		}
	}
}

// TestRecoveryKeyIsNeverWrittenOver, and both halves are the same key.
func TestRecoveryKeyIsNeverWrittenOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if code, _, errs := run("recovery", "new", "--out", dir); code != 0 {
		t.Fatal(errs)
	}
	before, err := os.ReadFile(filepath.Join(dir, privateName))
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run("recovery", "new", "--out", dir); code != 1 || !strings.Contains(errs, "never written over") {
		t.Error(code, errs)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, privateName)); !bytes.Equal(before, after) {
		t.Error("the private half has changed")
	}
	if st, err := os.Stat(filepath.Join(dir, privateName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the private half may be read by others: %v", st.Mode())
	}
	_, pub, _ := run("recovery", "id", filepath.Join(dir, publicName))
	_, priv, _ := run("recovery", "id", filepath.Join(dir, privateName))
	if a, _, _ := strings.Cut(pub, ","); a == "" || !strings.HasPrefix(priv, a) {
		t.Errorf("%q and %q", pub, priv)
	}
}
