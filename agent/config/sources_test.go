// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func decodeText(text string, c *Config) error {
	root, err := tree([]byte(text))
	if err != nil {
		return err
	}
	return decode(root, c)
}

// board writes fulmard.yaml and its drop-ins into a folder of their own.
func board(t *testing.T, base string, dropIns map[string]string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fulmard.yaml")
	put(t, path, base)
	for name, text := range dropIns {
		put(t, filepath.Join(DropInDir(path), name), text)
	}
	return path
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const comments = "# board: \"\"\n# fleet:\n#   address: \"\"\n"

func TestDropIns(t *testing.T) {
	t.Parallel()
	path := board(t, comments, map[string]string{
		"10-enrolment.yaml": "board: dock-1\nfleet: {address: 'fleet:8443', token_file: /etc/fulmar/join-token}\n",
		"20-site.yaml":      "fleet:\n  pin:\nspool: {event_mib: 99}\nsensors: {mounts: [/, /data]}\n",
		"30-more.yaml":      "spool: {metric_mib: 98}\nsensors: {mounts: [/srv]}\nlink:\n",
		"40-empty.yaml":     comments,
		".50-hidden.yaml":   "broken: [",
		"60-other.yml":      "broken: [",
		"70-old.yaml.bak":   "broken: [",
	})
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Board, want.Fleet = "dock-1", Fleet{Address: "fleet:8443", TokenFile: "/etc/fulmar/join-token"}
	want.Spool.EventMiB, want.Spool.MetricMiB = 99, 98
	want.Sensors.Mounts = []string{"/srv"}
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
}

// TestOnlyComments: a file without a key says nothing, so every default stands.
func TestOnlyComments(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", comments, "---\n", "fleet:\nspool: ~\n", "%YAML 1.2\n---\n# none\n"} {
		c, err := Parse([]byte(text))
		if want := Default(); err != nil || !reflect.DeepEqual(*c, want) {
			t.Errorf("%q: %v, %+v", text, err, c)
		}
	}
}

func TestDropInErrors(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for i := range maxDropIns + 1 {
		many[fmt.Sprintf("%03d.yaml", i)] = ""
	}
	for _, c := range []struct {
		name    string
		dropIns map[string]string
		want    string
	}{
		{"unknown key", map[string]string{"10-a.yaml": "spol: {}\n"}, `10-a.yaml: line 1: unknown key "spol"; did you mean "spool"?`},
		{"not yaml", map[string]string{"10-a.yaml": "link: [\n"}, "10-a.yaml: line 1: "},
		{"a list", map[string]string{"10-a.yaml": "- 1\n"}, "10-a.yaml: line 1: is no map of keys"},
		{"two documents", map[string]string{"10-a.yaml": "board: a\n---\nboard: b\n"}, "10-a.yaml: line 3: a second document begins"},
		{"value", map[string]string{"10-a.yaml": "spool: {event_mib: 7}\n", "20-b.yaml": "spool: {event_mib: 0}\n"}, "spool.event_mib: 0, wants 1 to 1048576 (from "},
		{"whose value", map[string]string{"10-a.yaml": "spool: {event_mib: 0}\n", "20-b.yaml": "spool: {metric_mib: 7}\n"}, "10-a.yaml)"},
		{"a list's value", map[string]string{"10-a.yaml": "models: [{name: m, path: rel}]\n"}, "10-a.yaml)"},
		{"too many", many, "holds 65 files, at most 64"},
		{"too large", map[string]string{"10-a.yaml": strings.Repeat("#\n", maxConfigBytes/4), "20-b.yaml": strings.Repeat("#\n", maxConfigBytes/4)}, "20-b.yaml: the file and its drop-ins are over"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(board(t, good, c.dropIns))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, wants %q in it", err, c.want)
			}
		})
	}
}

// TestDropInIsNoFile: what is not a file is refused, and a FIFO is not waited for.
func TestDropInIsNoFile(t *testing.T) {
	t.Parallel()
	path := board(t, good, map[string]string{"10-a.yaml": ""})
	fifo := filepath.Join(DropInDir(path), "20-b.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "20-b.yaml is not a regular file") {
		t.Error(err)
	}
	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(fifo, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "20-b.yaml is not a regular file") {
		t.Error(err)
	}
}

// TestLastGoodOfDropIns: a broken drop-in leaves the board on what all files said last,
// also where a drop-in says where the data is.
func TestLastGoodOfDropIns(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	path := board(t, "sensors: {mounts: [/, /a]}\nspool: {event_mib: 77, recovery_key: \"-----\\nx: y\\n-----\\n\"}\nbroker: {tls: '1.2', address: 'b:1'}\ninfer: {mode: \"off\"}\n", map[string]string{
		"10-enrolment.yaml": good + "data: " + data + "\n",
		"15-null.yaml":      "spool:\n  event_mib:\nboard: ~\n",
		"20-more.yaml":      "sensors: {mounts: [/b]}\nlink: {keep_alive: 30s}\nmodels: [{name: '1', path: /m}]\n",
	})
	want, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := KeepLastGood(path, want); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(DropInDir(path), "20-more.yaml"), "link: {keep_alive: 1s}\n")
	got, broken, err := LoadOrLastGood(path)
	if err != nil || broken == nil || !strings.Contains(broken.Error(), "20-more.yaml") {
		t.Fatalf("%v, broken %v", err, broken)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Link.KeepAlive != 30*time.Second {
		t.Error(got.Link.KeepAlive)
	}
	// The files are not those that were loaded: what is kept stays.
	put(t, filepath.Join(DropInDir(path), "20-more.yaml"), "link: {keep_alive: 40s}\n")
	if err := KeepLastGood(path, want); err == nil || !strings.Contains(err.Error(), "has changed since") {
		t.Error(err)
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	path := board(t, comments+"infer: {mode: \"off\"}\nbroker: {tls: '1.2'}\nsample:\n  on_change: [{series: 'a*', deadband: 1, max_silence: 1m}]\n", map[string]string{
		"10-enrolment.yaml": good, "20-a.yaml": "link: {keep_alive: 90s}\nmodels: [{name: m, path: /m}]\n",
	})
	want, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Show(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"board: dock-1 # fulmard.d/10-enrolment.yaml", "  address: fleet:8443 # fulmard.d/10-enrolment.yaml",
		"  keep_alive: 1m30s # fulmard.d/20-a.yaml", "  reconnect_window: 30s\n", "models: # fulmard.d/20-a.yaml\n- name: m",
	} {
		if !strings.Contains(string(b), line) {
			t.Errorf("no %q in\n%s", line, b)
		}
	}
	if got, err := Parse(b); err != nil || fmt.Sprint(*got) != fmt.Sprint(*want) { // a list may be nil or empty
		t.Errorf("%v: got  %+v\nwant %+v\n%s", err, got, want, b)
	}
	if b, err = ShowJSON(path); err != nil {
		t.Fatal(err)
	}
	var j struct {
		Files  []string
		From   map[string]string
		Config struct {
			Data  string
			Fleet struct {
				TokenFile string `json:"token_file"`
				Address   string
			}
		}
	}
	if err := json.Unmarshal(b, &j); err != nil || len(j.Files) != 3 || j.Config.Fleet.Address != "fleet:8443" || !strings.HasSuffix(j.From["fleet.address"], "/10-enrolment.yaml") {
		t.Errorf("%v: %+v\n%s", err, j, b)
	}
}
