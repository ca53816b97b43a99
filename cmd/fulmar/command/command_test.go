// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

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

	mu    sync.Mutex
	show  []rest.Command // what is told next; the last one for ever
	sent  []byte
	query string
}

func newDesk(t *testing.T, show ...rest.Command) *desk {
	t.Helper()
	d := &desk{t: t, show: show}
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
		d.sent, _ = io.ReadAll(r.Body)
		d.query = r.URL.RawQuery
		if d.query == "dry_run=true" {
			_ = json.NewEncoder(w).Encode(rest.DryRun{Would: "2 boards would get it."})
			return
		}
	}
	if strings.HasSuffix(r.URL.Path, "/kinds") {
		_ = json.NewEncoder(w).Encode(rest.List[rest.CommandKind]{Items: []rest.CommandKind{{Name: "snapshot", Boards: 3, Approval: true}}})
		return
	}
	if r.URL.Path == "/api/v1/commands" && r.Method == http.MethodGet {
		d.query = r.URL.RawQuery
		_ = json.NewEncoder(w).Encode(rest.List[rest.Command]{Items: d.show})
		return
	}
	v := d.show[0]
	if r.URL.Query().Get("boards") == "none" {
		v.Boards = nil
	}
	_ = json.NewEncoder(w).Encode(v)
	if len(d.show) > 1 {
		d.show = d.show[1:]
	}
}

func (d *desk) run(args ...string) (out, talk string, err error) {
	var o, e bytes.Buffer
	root := cli.Root(&cobra.Command{Use: "fulmar"}, "test")
	root.AddCommand(Command())
	_, err = cli.Execute(context.Background(), root, slices.Concat([]string{"command"}, args, d.args), &o, &e)
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

func in(state string, boards ...rest.CommandBoard) rest.Command {
	return rest.Command{ID: "c-31", Name: "set-valve-position", Args: json.RawMessage(`{"position":40}`), Actor: "m.kern", Given: time.Now(), Counts: map[string]int{state: 1}, Total: 1, Boards: boards}
}

// TestGive: what was typed reaches the fleet as it is meant.
func TestGive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, want string }{
		{"dock-3 set position=40 open=true camera=gate list=[1,2] n=007 --reason flush", `{"name":"set","args":{"camera":"gate","list":[1,2],"n":"007","open":true,"position":40},"boards":["dock-3"],"valid_s":300,"reason":"flush"}`},
		{"-q site=hall-4 snapshot --valid 1m --check", `{"name":"snapshot","query":"site=hall-4","valid_s":60,"check_only":true}`},
		{"dock-3 set text=a=b", `{"name":"set","args":{"text":"a=b"},"boards":["dock-3"],"valid_s":300}`},
	} {
		d := newDesk(t, in(rest.CommandQueued))
		_, talk, err := d.run(append([]string{"give", "--wait=false"}, strings.Fields(c.line)...)...)
		d.must(err, "")
		if string(d.sent) != c.want {
			t.Errorf("%s sent %s\nwants %s", c.line, d.sent, c.want)
		}
		if !strings.HasPrefix(talk, `c-31: set-valve-position {"position":40} to 1 board`) || !strings.Contains(talk, "next: fulmar command watch c-31\n") {
			t.Errorf("%s", talk)
		}
	}
	for _, line := range []string{"", "dock-3", "dock-3 a=b", "dock-3 set a", "dock-3 set =a", "dock-3 set a=1 a=2", "-q x a=b", "dock-3 set --valid 10ms"} {
		d := newDesk(t, in(rest.CommandQueued))
		_, _, err := d.run(append([]string{"give", "--wait=false"}, strings.Fields(line)...)...)
		if d.must(err, "[FLT0001]\n"); d.sent != nil {
			t.Errorf("%s sent %s", line, d.sent)
		}
	}
	d := newDesk(t, in(rest.CommandQueued))
	out, _, err := d.run("give", "dock-3", "set", "--plan")
	if d.must(err, ""); out != "2 boards would get it.\n" {
		t.Errorf("%s", out)
	}
}

// TestWait: how it ends is the exit code, and the boards are told as rows.
func TestWait(t *testing.T) {
	t.Parallel()
	row := func(state, code, text string) rest.CommandBoard {
		return rest.CommandBoard{ID: "0f", Board: "dock-3", State: state, Code: code, Text: text, Value: json.RawMessage(`{"at":40}`)}
	}
	d := newDesk(t, in(rest.CommandQueued), in(rest.CommandSent), in(rest.CommandRunning), in(rest.CommandDone, row("done", "", "")))
	out, talk, err := d.run("give", "dock-3", "set", "--timeout", "10s")
	d.must(err, "")
	if !strings.Contains(out, "dock-3  done         {\"at\":40}") || !strings.Contains(talk, "c-31  1 running\n") || !strings.Contains(talk, "c-31  1 done\n") {
		t.Errorf("%s%s", out, talk)
	}
	d = newDesk(t, in(rest.CommandFailed, row("failed", "interlocked", "the tank is full")))
	out, _, err = d.run("watch", "c-31")
	d.must(err, "[FLT0901]\n")
	if !strings.Contains(out, "interlocked") || !strings.Contains(out, "the tank is full") {
		t.Errorf("%s", out)
	}
	d = newDesk(t, in(rest.CommandUnknown, row("unknown", "", "")))
	_, _, err = d.run("watch", "c-31")
	d.must(err, "[FLT0902]\n")
	d = newDesk(t, in(rest.CommandWaiting))
	_, _, err = d.run("give", "dock-3", "set")
	d.must(err, "[FLT0903]\n")
	d = newDesk(t, in(rest.CommandSent))
	_, _, err = d.run("give", "dock-3", "set", "--timeout", "20ms")
	d.must(err, "[FLT0311]\n")
}

// TestLook: list, show, kinds and the acts.
func TestLook(t *testing.T) {
	t.Parallel()
	c := in(rest.CommandCancelled, rest.CommandBoard{Board: "dock-3", State: "cancelled", Events: []rest.CommandEvent{{State: "queued", At: time.Now()}, {State: "cancelled", At: time.Now(), Text: "by \x1b[31mann"}}})
	c.Reason, c.Approval = "flush", &rest.CommandApproval{Wanted: true, By: "ann", Refused: true, At: time.Now()}
	d := newDesk(t, c)
	for line, want := range map[string]string{
		"list --board dock-3 --state done": `c-31  set-valve-position {"position":40}  now    m.kern  1 cancelled`,
		"show c-31":                        "refused by ann at ",
		"kinds":                            "snapshot  3       has to agree",
		"show c-31 -o name":                "dock-3\n",
	} {
		out, _, err := d.run(strings.Fields(line)...)
		if d.must(err, ""); !strings.Contains(out, want) || strings.Contains(out, "\x1b") {
			t.Errorf("%s tells %s\nwants %s", line, out, want)
		}
	}
	_, talk, err := d.run("cancel", "c-31", "--reason", "no")
	if d.must(err, ""); string(d.sent) != `{"action":"cancel","reason":"no"}` || !strings.HasPrefix(talk, "c-31 is cancelled: 1 cancelled\n") {
		t.Errorf("%s %s", d.sent, talk)
	}
	d.show = []rest.Command{in(rest.CommandRunning)}
	_, talk, err = d.run("cancel", "c-31")
	if d.must(err, ""); !strings.HasPrefix(talk, "c-31 is being cancelled: 1 running\n") {
		t.Errorf("%s", talk)
	}
}
