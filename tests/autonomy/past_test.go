// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fulmar/schema/onboard"
	"fulmar/schema/rest"
	"fulmar/tests/local"
)

// plain is a board with one valve on the field bus.
func plain(p *field) string {
	return fmt.Sprintf(`sensors: {synthetic: 1}
outputs: [{name: valve, kind: modbus, unit: percent, min: 0, max: 100, restore: leave, modbus: {address: %q, device: 1, register: 0}}]
`, p.address)
}

// valve moves the valve by a command of the fleet's, and gives its id.
func (h *house) valve(valid time.Duration, percent int) string {
	h.t.Helper()
	return h.give(valid, "set-valve-position", fmt.Sprintf(`{"valve": "valve", "percent": %d}`, percent), "a test", board)
}

// byHand moves the valve at the board.
func (h *house) byHand(percent int) (s onboard.Step) {
	h.t.Helper()
	h.must(board, &s, "give", "set-valve-position", "valve=valve", fmt.Sprintf("percent=%d", percent), "--reason", "by hand")
	return s
}

// moved counts how often a position was written.
func (p *field) moved(percent int) (n int) {
	for _, v := range p.written(0) {
		if v == percent {
			n++
		}
	}
	return n
}

// once holds positions to having been written one time each.
func (h *house) once(p *field, percents ...int) {
	h.t.Helper()
	for _, v := range percents {
		if n := p.moved(v); n != 1 {
			h.t.Errorf("%d %% was written %d times, wants once: %v", v, n, p.written(0))
		}
	}
}

// ready waits until the fleet knows a new board and what it can do.
func (h *house) ready() {
	h.t.Helper()
	h.linked(board, true)
	h.until("the commands that the board has", 30*time.Second, func() bool { return len(h.twin(board).Reported["commands"]) > 0 })
}

// synced waits until both sides have the same twin, with these values.
func (h *house) synced(want map[string]string) {
	h.t.Helper()
	var here, there map[string]string
	same := func() bool {
		here, there = map[string]string{}, map[string]string{}
		var keys []onboard.Key
		h.must(board, &keys, "twin")
		for _, k := range keys {
			here[k.Key] = string(k.Value)
		}
		t := h.twin(board)
		for _, k := range t.Keys {
			there[k.Key] = string(k.Value)
		}
		for k, v := range want {
			if here[k] != v {
				return false
			}
		}
		return t.InSync && maps.Equal(here, there)
	}
	for end := time.Now().Add(time.Minute); !same(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("the twin is %v on the board and %v at the fleet (in sync: %v), wants %v", here, there, h.twin(board).InSync, want)
		}
	}
}

// row waits until the fleet has exactly one row of what was given on the board, with its
// last word.
func (h *house) row(id, state string) {
	h.t.Helper()
	var found []rest.CommandBoard
	h.until("a row of "+id, 30*time.Second, func() bool {
		found = nil
		for _, r := range h.rows(board) {
			if b := h.state(r.ID); b.ID == id {
				found = append(found, b)
			}
		}
		return len(found) > 0 && rest.CommandFinal(found[0].State)
	})
	if len(found) != 1 || found[0].State != state {
		h.t.Errorf("%s: %+v, wants one row that is %s", id, found, state)
	}
}

func (h *house) stop(p *local.Proc) {
	h.t.Helper()
	if _, err := p.Stop(); err != nil {
		h.t.Fatal(err)
	}
}

func copied(t *testing.T, from, to string) {
	t.Helper()
	if b, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
}

// TestOldBackup: the fleet is lost and comes back from a backup, and its board knows more
// than it: newer settings, commands that were done since, and one that the backup holds as
// not given yet. Nothing is done twice and nothing goes back.
func TestOldBackup(t *testing.T) {
	t.Parallel()
	h, p := newHouse(t), newField(t)
	h.start(board, "", plain(p))
	h.ready()
	h.wants(board, "first", map[string]any{"app.before": 1, "app.both": 1})
	h.done(h.valve(time.Minute, 10))
	h.synced(map[string]string{"app.before": "1"})
	h.up.Cut()
	h.linked(board, false)
	h.until("the board's absence", 30*time.Second, func() bool {
		b, err := h.api.Board(t.Context(), board)
		return err == nil && !b.Online
	})
	open := h.valve(time.Hour, 20) // in the backup it waits

	out := filepath.Join(h.Dir, "fleet.backup")
	data := filepath.Join(h.Dir, "fleet")
	if b, err := exec.Command(filepath.Join(h.Bin, "fulmar-fleet"), "backup", "--data", data, "--out", out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	h.up.Heal()
	h.done(open)
	h.done(h.valve(time.Minute, 30))
	h.wants(board, "second", map[string]any{"app.since": 2, "app.both": 2})
	h.must(board, nil, "set", "app.board=3", "--reason", "by hand")
	here := h.byHand(40)
	h.row(here.ID, rest.CommandDone)
	h.synced(map[string]string{"app.since": "2", "app.both": "2", "app.board": "3"})

	h.Fleet.Kill()
	if err := os.Rename(data, data+".lost"); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(filepath.Join(h.Bin, "fulmar-fleet"), "restore", "--from", out, "--data", data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	h.startFleet()
	h.linked(board, true)
	h.synced(map[string]string{"app.before": "1", "app.since": "2", "app.both": "2", "app.board": "3"})
	h.until("a last word on what the backup had open", time.Minute, func() bool { return rest.CommandFinal(h.state(open).State) })
	h.done(h.valve(time.Minute, 50)) // with a number below those of the lost fleet, at first
	h.wants(board, "third", map[string]any{"app.both": 4})
	h.synced(map[string]string{"app.both": "4", "app.since": "2"})
	again := h.byHand(60)
	h.row(again.ID, rest.CommandDone)
	h.once(p, 10, 20, 30, 40, 50, 60)
	t.Logf("what the backup had open is %+v", h.state(open))
}

// TestOldDisk: a board gets its disk of yesterday back. It does nothing again, learns what
// it shall be, and what is given on it is new at the fleet, though its numbers are old.
func TestOldDisk(t *testing.T) {
	t.Parallel()
	h, p := newHouse(t), newField(t)
	proc := h.start(board, "", plain(p))
	h.ready()
	h.wants(board, "first", map[string]any{"app.both": 1})
	h.done(h.valve(time.Hour, 10))
	h.synced(map[string]string{"app.both": "1"})
	h.row(h.byHand(15).ID, rest.CommandDone)
	h.stop(proc)
	dir := h.BoardDir(board)
	copied(t, dir, dir+".old")
	config := filepath.Join(h.Dir, board+".yaml")

	proc = h.run(board, config)
	h.linked(board, true)
	h.done(h.valve(time.Hour, 20))
	h.wants(board, "second", map[string]any{"app.both": 2})
	h.must(board, nil, "set", "app.board=3", "--reason", "by hand")
	old := h.byHand(25)
	h.row(old.ID, rest.CommandDone)
	h.synced(map[string]string{"app.both": "2", "app.board": "3"})
	h.stop(proc)
	if err := os.Rename(dir, dir+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".old", dir); err != nil {
		t.Fatal(err)
	}

	h.run(board, config)
	h.linked(board, true)
	h.synced(map[string]string{"app.both": "2"})
	h.done(h.valve(time.Hour, 30))
	now := h.byHand(35) // its number is that of the one before
	h.row(now.ID, rest.CommandDone)
	h.row(old.ID, rest.CommandDone)
	h.wants(board, "third", map[string]any{"app.both": 4})
	h.must(board, nil, "set", "app.board=5", "--reason", "by hand")
	h.synced(map[string]string{"app.both": "4", "app.board": "5"})
	h.once(p, 10, 15, 20, 25, 30, 35)
}

// TestCopiedBoard: a copy of a board's disk with the key on it runs beside the board. The
// fleet gives a command to one of them, hears of what was done by hand on both, and when
// the copy is gone all is as with one.
func TestCopiedBoard(t *testing.T) {
	t.Parallel()
	h, p := newHouse(t), newField(t)
	proc := h.start(board, "", plain(p))
	h.ready()
	h.wants(board, "first", map[string]any{"app.x": 1})
	h.synced(map[string]string{"app.x": "1"})
	h.stop(proc)
	copied(t, h.BoardDir(board), h.BoardDir("copy"))
	b, err := os.ReadFile(filepath.Join(h.Dir, board+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(h.Dir, "copy.yaml")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(string(b), h.BoardDir(board), h.BoardDir("copy"))), 0o600); err != nil {
		t.Fatal(err)
	}
	h.run(board, filepath.Join(h.Dir, board+".yaml"))
	copy := h.run("copy", config)
	h.until("both at work", 30*time.Second, func() bool {
		a, _ := h.local(board, nil, "status")
		b, _ := h.local("copy", nil, "status")
		return a == 0 && b == 0
	})
	var both []string
	for i := range 4 {
		name := []string{board, "copy"}[i%2]
		var s onboard.Step
		h.must(name, &s, "give", "set-valve-position", "valve=valve", fmt.Sprintf("percent=%d", 20+i), "--reason", name)
		both = append(both, s.ID)
		time.Sleep(time.Second)
	}
	id := h.valve(time.Minute, 50)
	h.wants(board, "while there are two", map[string]any{"app.x": 2})
	h.until("a last word", 90*time.Second, func() bool { return rest.CommandFinal(h.state(id).State) })
	if n := p.moved(50); n > 2 || n == 0 && h.state(id).State == rest.CommandDone {
		t.Errorf("two boards did it %d times; the fleet says %+v", n, h.state(id))
	}
	for _, id := range both {
		h.row(id, rest.CommandDone)
	}
	said := ""
	for _, r := range h.rows(board) {
		if r.Local {
			said += string(r.Args)
		}
	}
	for i := range both {
		if n := strings.Count(said, fmt.Sprintf(`"percent":%d`, 20+i)); n != 1 {
			t.Errorf("what was done by hand to %d %% has %d rows: %s", 20+i, n, said)
		}
	}
	h.stop(copy)
	h.synced(map[string]string{"app.x": "2"})
	h.done(h.valve(time.Minute, 60))
	h.once(p, 20, 21, 22, 23, 60)
}
