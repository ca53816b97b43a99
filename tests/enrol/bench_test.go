// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"fulmar/cmd/fulmar/enrol"
	"fulmar/internal/exetest"
	"fulmar/tests/local"
)

// systemctl is the stand-in: it starts and restarts the fulmard of the folder that it
// lies in, and says that its unit is enabled.
const systemctl = `#!/bin/sh
dir=$(dirname "$0")
echo "$@" >> "$dir/calls"
case "$1" in
is-enabled) echo enabled ;;
restart)
	if [ -e "$dir/broken" ]; then echo "Job for $2 failed." >&2; exit 1; fi
	if [ -e "$dir/pid" ]; then kill "$(cat "$dir/pid")" 2>/dev/null; while kill -0 "$(cat "$dir/pid")" 2>/dev/null; do sleep 0.05; done; fi
	setsid fulmard run --config "$dir/fulmard.yaml" >> "$dir/log" 2>&1 < /dev/null &
	echo $! > "$dir/pid"
	;;
esac
`

// bench is a fleet and a board beside it, which is as a package leaves it.
type bench struct {
	t    *testing.T
	site *local.Site
	dir  string // of the board: fulmard.yaml, fulmard.d, join-token, the stand-in
	bin  string
	data string
}

func newBench(t *testing.T, extra string) *bench {
	t.Helper()
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(root, "bin")
	for _, p := range []string{"fulmar", "fulmard", "fulmar-fleet"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%v; run: make build", err)
			}
			t.Skipf("%v; run: make build", err)
		}
	}
	dir, err := os.MkdirTemp("", "enrol") // a socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &bench{t, newSite(t, filepath.Join(dir, "site"), bin), filepath.Join(dir, "board"), bin, filepath.Join(dir, "data")}
	b.board(extra)
	return b
}

// newSite starts a fleet.
func newSite(t *testing.T, dir, bin string) *local.Site {
	t.Helper()
	site, err := local.New(dir, bin, "/none")
	if err != nil {
		t.Fatal(err)
	}
	if err := site.StartFleet(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { site.Fleet.Kill() })
	return site
}

// second is another board of the same fleet.
func (b *bench) second() *bench {
	other := &bench{b.t, b.site, b.dir + "-2", b.bin, b.data + "-2"}
	other.board("")
	return other
}

// board makes what a package leaves on a board.
func (b *bench) board(extra string) {
	b.t.Helper()
	for _, d := range []string{b.dir, b.data} {
		if err := os.Mkdir(d, 0o700); err != nil {
			b.t.Fatal(err)
		}
	}
	if !strings.Contains(extra, "key:") {
		extra += "key: {mode: software}\n"
	}
	b.write("fulmard.yaml", "# As the package brings it, but for what a test wants.\ndata: "+b.data+"\ninfer: {mode: \"off\"}\nsensors: {synthetic: 3}\nlink: {keep_alive: 10s, reconnect_window: 1s}\n"+extra, 0o640)
	b.write("join-token", "", 0o640)
	b.write("systemctl", systemctl, 0o755)
	b.write("start", systemctl, 0o755)
	b.t.Cleanup(b.stop)
}

// startByHand starts fulmard as a person without systemd would.
func (b *bench) startByHand() {
	cmd := b.command()
	cmd.Path, cmd.Args = filepath.Join(b.dir, "start"), []string{"start", "restart", "fulmard.service"}
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Error(err, string(out))
	}
}

// detour is an address that leads to the fleet, and is not in its certificate.
func (b *bench) detour() string {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		to, err := net.Dial("tcp", b.site.HTTPS)
		if err != nil {
			return
		}
		defer to.Close()
		go func() { _, _ = io.Copy(to, c) }()
		_, _ = io.Copy(c, to)
	}()
	return l.Addr().String()
}

// plain is the address of something that speaks no TLS.
func (b *bench) plain() string {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

func (b *bench) write(name, text string, mode os.FileMode) {
	b.t.Helper()
	if err := exetest.Write(filepath.Join(b.dir, name), []byte(text), mode); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) read(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return "(none)"
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

func (b *bench) pid() int {
	n, _ := strconv.Atoi(strings.TrimSpace(b.read("pid")))
	return n
}

// stop ends the fulmard that the stand-in started.
func (b *bench) stop() {
	pid := b.pid()
	if pid == 0 {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGTERM)
	for end := time.Now().Add(8 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if b.t.Failed() {
		b.t.Log(b.read("log"))
	}
}

// fleet runs fulmar-fleet on the fleet's data.
func (b *bench) fleet(args ...string) string {
	b.t.Helper()
	out, err := exec.Command(filepath.Join(b.bin, "fulmar-fleet"), append(args, "--data", filepath.Join(b.site.Dir, "fleet"))...).Output()
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// command is fulmar with a PATH in which the stand-in comes first.
func (b *bench) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(b.bin, "fulmar"), args...)
	cmd.Env = append(os.Environ(), "PATH="+b.dir+":"+b.bin+":"+os.Getenv("PATH"))
	return cmd
}

// said is what fulmar enrol did.
type said struct {
	code      int
	out, talk string
}

// enrol types fulmar enrol, with the token on standard input if there is one.
func (b *bench) enrol(token string, args ...string) said {
	b.t.Helper()
	args = append([]string{"enrol", "--config", filepath.Join(b.dir, "fulmard.yaml")}, args...)
	if token != "" {
		args = append(args, "-")
	}
	cmd := b.command(args...)
	var out, talk bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(token+"\n"), &out, &talk
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	if token != "" && strings.Contains(out.String()+talk.String(), strings.Split(token, "_")[1]) {
		b.t.Errorf("the token's secret is shown:\n%s%s", &out, &talk)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), talk.String()}
}

// must is enrol that has to end with a code, and say some things.
func (b *bench) must(code int, s said, want ...string) said {
	b.t.Helper()
	for _, w := range want {
		if !strings.Contains(s.out+s.talk, w) {
			b.t.Errorf("does not say %q", w)
		}
	}
	if s.code != code || b.t.Failed() {
		b.t.Fatalf("ended with %d, wants %d\n%s%s", s.code, code, s.out, s.talk)
	}
	return s
}

// untouched holds the board to how the package left it.
func (b *bench) untouched() {
	b.t.Helper()
	if d, t := b.read("fulmard.d/10-enrolment.yaml"), b.read("join-token"); d != "(none)" || t != "" {
		b.t.Errorf("the board was changed: drop-in %q, token %q", d, t)
	}
}

// result is --json.
func (b *bench) result(s said) (r enrol.Result) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(s.out), &r); err != nil {
		b.t.Fatalf("%v in %s%s", err, s.out, s.talk)
	}
	return r
}

// arrived tells how many batches of samples the fleet has of a board.
func (b *bench) arrived(name string) (n uint64) {
	b.t.Helper()
	api, err := b.site.API()
	if err != nil {
		b.t.Fatal(err)
	}
	board, err := api.Board(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range board.Ledger {
		n += l.Arrived
	}
	return n
}

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatal("did not come: " + what)
		}
	}
}

func names(r enrol.Result) string {
	var out []string
	for _, s := range r.Steps {
		out = append(out, fmt.Sprintf("%s %s", s.Name, s.State))
	}
	return strings.Join(out, ", ")
}
