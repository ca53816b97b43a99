// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/internal/exetest"
	"fulmar/internal/peercred"
	"fulmar/schema/onboard"
)

// Users and groups that no system has.
const (
	stranger   = 61003
	member     = 61004
	operators  = 61010
	otherGroup = 61011
)

// askEnv makes the test binary one that asks at a socket: METHOD PATH BODY.
const askEnv = "FULMAR_LOCAL_ASK"

func TestMain(m *testing.M) {
	if path := os.Getenv(askEnv); path != "" {
		req, err := http.NewRequest(os.Args[1], "http://board"+os.Args[2], strings.NewReader(os.Args[3]))
		if err == nil {
			var res *http.Response
			if res, err = client(path).Do(req); err == nil {
				fmt.Println(res.StatusCode)
				_, err = io.Copy(os.Stdout, res.Body)
			}
		}
		if err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// as asks as another user with groups.
func (b *board) as(uid, gid int, groups []uint32, method, path, body string) string {
	b.t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			b.t.Fatal("only root may start programs as other users")
		}
		b.t.Skip("only root may start programs as other users")
	}
	cmd := exec.Command(filepath.Join(filepath.Dir(b.path), "ask"), method, path, body)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: groups}}
	cmd.Dir, cmd.Env = "/", []string{askEnv + "=" + b.path}
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("as %d: %v: %s", uid, err, out)
	}
	return string(out)
}

// public opens the folder and copies the test binary to where all may run it.
func (b *board) public() {
	b.t.Helper()
	dir := filepath.Dir(b.path)
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	program, err := os.ReadFile(exe)
	if err == nil {
		err = exetest.Write(filepath.Join(dir, "ask"), program, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestOtherUsers: who may do what is decided by what the kernel says of the caller. The
// socket's mode alone keeps strangers out; where it does not, roles do.
func TestOtherUsers(t *testing.T) {
	t.Parallel()
	b := start(t, func(b *board) { b.access = Access{Operators: []string{"root", "%61010", "%no-such-group"}} })
	b.public()
	if out := b.as(stranger, stranger, nil, "GET", "/v1/state", ""); !strings.Contains(out, "permission denied") {
		t.Errorf("a stranger by the socket's mode: %s", out)
	}
	if err := os.Chmod(b.path, 0o666); err != nil {
		t.Fatal(err)
	}
	const order = `{"name":"set-valve","args":{"valve":"main","percent":10},"wait_s":20}`
	for _, method := range [][3]string{
		{"POST", "/v1/commands", order},
		{"POST", "/v1/commands/00000000000000000000000000000001/cancel", "{}"},
		{"PUT", "/v1/twin/keys/app.x", `{"value":1}`},
		{"DELETE", "/v1/twin/keys/app.x", ""},
	} {
		out := b.as(stranger, otherGroup, []uint32{otherGroup}, method[0], method[1], method[2])
		if !strings.HasPrefix(out, "403\n") || !strings.Contains(out, "uid-61003 (user id 61003) is a viewer") {
			t.Errorf("%v by a stranger: %s", method, out)
		}
	}
	if out := b.as(stranger, stranger, nil, "GET", "/v1/state", ""); !strings.HasPrefix(out, "200\n") || !strings.Contains(out, `"you":{"user":"uid-61003","role":"viewer"`) {
		t.Errorf("a viewer: %s", out)
	}
	if _, n := b.position(); n != 0 {
		t.Fatal("the valve moved for a stranger")
	}
	if !strings.Contains(b.log.String(), "uid=61003") || !strings.Contains(b.log.String(), "code=not-allowed") {
		t.Errorf("the log does not tell who was refused: %s", b.log)
	}
	// By a supplementary group, and by the first group.
	for i, groups := range [][]uint32{{otherGroup, operators}, nil} {
		gid := member
		if groups == nil {
			gid = operators
		}
		if out := b.as(member, gid, groups, "POST", "/v1/commands", order); !strings.Contains(out, `"done"`) {
			t.Errorf("a member (%v): %s", groups, out)
		}
		if _, n := b.position(); n != i+1 {
			t.Errorf("the valve moved %d times", n)
		}
	}
	if e := b.last(); e.Command.Actor != "local/uid-61004" {
		t.Errorf("given by %s", e.Command.Actor)
	}
	// Viewers named: nobody else sees anything.
	b.mu.Lock()
	b.access = Access{Operators: []string{"root"}, Viewers: []string{"61004"}}
	b.mu.Unlock()
	if out := b.as(stranger, stranger, nil, "GET", "/v1/state", ""); !strings.HasPrefix(out, "403\n") || !strings.Contains(out, "a person without a role") {
		t.Errorf("without a role: %s", out)
	}
	if out := b.as(member, operators, nil, "GET", "/v1/state", ""); !strings.HasPrefix(out, "200\n") {
		t.Errorf("a viewer by name: %s", out)
	}
	if out := b.as(member, operators, nil, "PUT", "/v1/twin/keys/app.x", `{"value":1}`); !strings.HasPrefix(out, "403\n") {
		t.Errorf("one who is an operator no longer: %s", out)
	}
}

// TestRole: entries of the config against people.
func TestRole(t *testing.T) {
	t.Parallel()
	p := phone{names: map[int]string{0: "root", 7: "anna", 8: "7", overflow: "nobody"}, groups: map[string]int{"plant": 70, "nogroup": overflow}}
	for _, c := range []struct {
		operators, viewers []string
		uid, gid           int
		groups             []int
		want               onboard.Role
	}{
		{[]string{"root"}, nil, 0, 0, nil, onboard.RoleOperator},
		{nil, nil, 0, 0, nil, onboard.RoleViewer}, // root by config alone
		{[]string{"anna"}, nil, 7, 7, nil, onboard.RoleOperator},
		{[]string{"7"}, nil, 7, 7, nil, onboard.RoleOperator},
		{[]string{"7"}, nil, 8, 8, nil, onboard.RoleViewer}, // a user with the name 7 is not number 7
		{[]string{"plant"}, nil, 7, 70, []int{70}, onboard.RoleViewer},
		{[]string{"%plant"}, nil, 7, 7, []int{70}, onboard.RoleOperator},
		{[]string{"%plant"}, nil, 7, 70, nil, onboard.RoleOperator},
		{[]string{"%plant"}, nil, 7, 7, []int{71}, onboard.RoleViewer},
		{[]string{"%gone"}, nil, 7, 0, []int{0}, onboard.RoleViewer}, // no group of that name is not group 0
		{[]string{"%70"}, nil, 7, 7, []int{70}, onboard.RoleOperator},
		{[]string{"root"}, []string{"%plant"}, 7, 70, nil, onboard.RoleViewer},
		{[]string{"root"}, []string{"%plant"}, 7, 7, nil, onboard.RoleNone},
		{[]string{"nobody", "65534", "%nogroup", "%65534"}, nil, overflow, overflow, []int{overflow}, onboard.RoleViewer},
	} {
		a := Access{c.operators, c.viewers}
		if got := a.role(p, peercred.Peer{UID: c.uid, GID: c.gid, Groups: c.groups}); got != c.want {
			t.Errorf("%v: %s, want %s", c, got, c.want)
		}
	}
}

type phone struct {
	names  map[int]string
	groups map[string]int
}

func (p phone) name(uid int) string { return p.names[uid] }

func (p phone) group(name string) (int, bool) {
	n, ok := p.groups[name]
	return n, ok
}

// TestFlood: nobody takes all connections; who is over the bound is told, the log does not
// grow with them, and when they have gone all is as before.
func TestFlood(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	var open []net.Conn
	turned := 0
	for range 200 {
		c, err := net.Dial("unix", b.path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		// One that is let in hears nothing until it asks.
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if len(open) <= maxUserOnes {
			continue
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		if p := problem(t, string(text)); res.StatusCode == 503 && p.Code == onboard.TooMany && strings.Contains(p.Text, "8 connections") {
			turned++
		}
	}
	if turned != 200-maxUserOnes {
		t.Errorf("%d were turned away, wants %d", turned, 200-maxUserOnes)
	}
	if n := strings.Count(b.log.String(), "\n"); n > maxLines+5 {
		t.Errorf("%d lines in the log", n)
	}
	for _, c := range open {
		c.Close()
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if status, _ := b.ask("GET", "/v1/kinds", ""); status == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nobody is let in any more")
		}
	}
}

// TestDoor: strangers together never take the room of root.
func TestDoor(t *testing.T) {
	t.Parallel()
	d := newDoor(nil, nil)
	in := 0
	for uid := 1; uid <= 100; uid++ {
		for d.enter(uid) == "" {
			in++
		}
	}
	if in != maxStrange {
		t.Errorf("%d strangers came in, wants %d", in, maxStrange)
	}
	for i := range maxUserOnes {
		if why := d.enter(0); why != "" {
			t.Errorf("root, connection %d: %s", i+1, why)
		}
	}
	if d.enter(0) == "" || d.all != maxConns {
		t.Errorf("%d connections", d.all)
	}
	d.leave(1)
	if why := d.enter(50); why != "" {
		t.Errorf("one left, one came: %s", why)
	}
}

// TestSlow: who sends a request byte by byte, or does not read an answer, is left.
func TestSlow(t *testing.T) {
	t.Parallel()
	b := start(t, func(b *board) {
		b.times = times{header: 100 * time.Millisecond, body: 200 * time.Millisecond, write: 100 * time.Millisecond, idle: 100 * time.Millisecond}
	})
	gone := func(what, send string) {
		t.Helper()
		c, err := net.Dial("unix", b.path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, send); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: the connection stays", what)
		}
	}
	gone("half a head", "GET /v1/state HTTP/1.1\r\nHo")
	gone("half a body", "POST /v1/commands HTTP/1.1\r\nHost: b\r\nContent-Length: 100\r\n\r\n{\"name\":")
	gone("no word at all", "")
	gone("a head of 1 MiB", "GET / HTTP/1.1\r\nHost: b\r\nX: "+strings.Repeat("x", 16<<10))

	// Talk answers a kilobyte each 100 microseconds, which nobody reads here.
	c, err := net.Dial("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := `{"name":"talk","wait_s":600}`
	fmt.Fprintf(c, "POST /v1/commands HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	// It is let go, and with it its connection's place, though the command goes on.
	place := func(want int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); b.door.count() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d connections, wants %d: an answer is written to who does not read it", b.door.count(), want)
			}
		}
	}
	for end := time.Now().Add(20 * time.Second); !strings.Contains(b.log.String(), "command=talk"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was not begun")
		}
	}
	place(0)
	if s := b.last().Result.State; s != command.Running {
		t.Errorf("the command is %v", s)
	}
}

// TestRefusalsInLog: the log takes a bounded number of lines, and says how many it left out.
func TestRefusalsInLog(t *testing.T) {
	t.Parallel()
	b := fresh(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 250 {
				b.Server.log.say(t.Context(), "refused")
			}
		})
	}
	wg.Wait()
	if n := bytes.Count([]byte(b.log.String()), []byte("\n")); n < maxLines || n > maxLines+2 {
		t.Errorf("%d lines", n)
	}
	b.Server.log.mu.Lock()
	b.Server.log.at = b.Server.log.at.Add(-time.Minute)
	b.Server.log.mu.Unlock()
	b.Server.log.say(t.Context(), "refused")
	if !strings.Contains(b.log.String(), "refused_before_and_not_written=9") {
		t.Errorf("what was left out is not told: %s", b.log)
	}
}
