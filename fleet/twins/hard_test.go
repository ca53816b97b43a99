// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/fleet/audit"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/twinrows"
	"fulmar/schema"
	"fulmar/twin/wire"
)

// TestRestored: a fleet that is restored from an old backup learns from its boards what
// was edited since, loses no edit of before or after, and no board goes back.
func TestRestored(t *testing.T) {
	t.Parallel()
	dir, old := t.TempDir(), t.TempDir()
	p := open(t, dir)
	b := p.air.add(t, p.Twins, "b1")
	late := p.air.add(t, p.Twins, "b2")  // a twin that the backup does not have at all
	first := p.air.add(t, p.Twins, "b3") // one that comes before anybody edits
	first.connect(1)
	p.patch(t, "b3", "app.before", 1)
	b.connect(1)
	p.patch(t, "b1", "app.before", 1, "app.both", 1)
	until(t, "applied", func() bool { return p.twin(t, "b1").InSync && p.twin(t, "b1").Applied == 1 })
	until(t, "applied", func() bool { return p.twin(t, "b3").InSync && p.twin(t, "b3").Applied == 1 })
	first.cut()
	b.cut()
	backup(t, p, old)
	p.patch(t, "b1", "app.since", 2, "app.both", 2)
	p.patch(t, "b2", "app.late", 2)
	b.connect(2)
	late.connect(2)
	until(t, "applied", func() bool { return p.twin(t, "b1").Applied == 2 && p.twin(t, "b2").Applied == 1 })
	b.cut()
	late.cut()
	p.end()

	reg, err := registry.Open(old)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(reg.Restored(t.Context(), time.Now()), reg.Close()); err != nil {
		t.Fatal(err)
	}
	q := openOn(t, old, p.air)
	if v := q.twin(t, "b1").Version; v != 1 {
		t.Fatalf("the backup is of version %d", v)
	}
	for range 3 { // more versions than the board has of the other life
		q.patch(t, "b1", "app.after", time.Now().UnixNano(), "app.both", 3)
	}
	q.patch(t, "b2", "app.other", 2)
	q.patch(t, "b2", "app.other", 3)
	b.to, late.to, first.to = q.Twins, q.Twins, q.Twins
	first.connect(3)
	until(t, "back", func() bool { return q.twin(t, "b3").InSync })
	q.patch(t, "b3", "app.after", 2)
	until(t, "applied", func() bool { return first.effective("app.after") == "2" && q.twin(t, "b3").InSync })
	b.connect(3)
	late.connect(3)
	until(t, "healed", func() bool { return q.twin(t, "b1").InSync && q.twin(t, "b2").InSync })
	for key, want := range map[string]string{"app.before": "1", "app.since": "2", "app.both": "3"} {
		if got := b.effective(key); got != want {
			t.Errorf("%s is %s on the board, wants %s", key, got, want)
		}
	}
	if late.effective("app.late") != "2" || late.effective("app.other") != "3" || b.effective("app.after") == "" {
		t.Errorf("of the twin that the backup did not have: %s, %s; %s", late.effective("app.late"), late.effective("app.other"), b.effective("app.after"))
	}
	if got := q.kinds(t, "b1"); !slices.Contains(got, "decided app.both") {
		t.Errorf("no word of what both lives set: %q", got)
	}
	q.patch(t, "b1", "app.then", 4) // it is pushed: nothing holds it back any more
	until(t, "pushed", func() bool { return b.effective("app.then") == "4" })
}

// backup copies the registry as it is.
func backup(t *testing.T, p *place, to string) {
	t.Helper()
	if _, err := p.reg.Database().Write.ExecContext(t.Context(), "VACUUM INTO ?", to+"/registry.db"); err != nil {
		t.Fatal(err)
	}
}

// TestPutBack: a registry that is put back without anybody saying so loses nothing, whether
// somebody edits before the board comes, or after.
func TestPutBack(t *testing.T) {
	t.Parallel()
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprint("early ", early), func(t *testing.T) {
			t.Parallel()
			old := t.TempDir()
			p := open(t, t.TempDir())
			b := p.air.add(t, p.Twins, "b1")
			b.connect(1)
			p.patch(t, "b1", "app.a", 1)
			until(t, "applied", func() bool { return p.twin(t, "b1").InSync && p.twin(t, "b1").Applied == 1 })
			backup(t, p, old)
			p.patch(t, "b1", "app.b", 2)
			until(t, "applied", func() bool { return p.twin(t, "b1").Applied == 2 })
			b.cut()
			p.end()
			q := openOn(t, old, p.air)
			b.to = q.Twins
			if early {
				q.patch(t, "b1", "app.c", 3)
				q.patch(t, "b1", "app.d", 4)
			}
			b.connect(2)
			if !early {
				until(t, "healed", func() bool { return q.twin(t, "b1").InSync && q.twin(t, "b1").Version > 2 })
				q.patch(t, "b1", "app.c", 3, "app.d", 4)
			}
			until(t, "applied", func() bool { return b.effective("app.c") == "3" && q.twin(t, "b1").InSync })
			for key, want := range map[string]string{"app.a": "1", "app.b": "2", "app.c": "3", "app.d": "4"} {
				if got := b.effective(key); got != want {
					t.Errorf("%s is %s, wants %s", key, got, want)
				}
			}
		})
	}
}

// TestClones: two boards with one identity take turns; the twin stays one, both get what
// the fleet wants, and what each set is there.
func TestClones(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir())
	a := p.air.add(t, p.Twins, "b1")
	a.connect(1)
	p.patch(t, "b1", "app.rate", 1)
	until(t, "applied", func() bool { return p.twin(t, "b1").InSync && p.twin(t, "b1").Applied == 1 })
	a.set("app.edge", "before the copy")
	a.pending()
	a.cut()
	saved, err := a.side.Save()
	if err != nil {
		t.Fatal(err)
	}
	b := &board{t: t, name: "b1", side: newSide(t, "b1", saved), air: p.air, to: p.Twins}
	for i := range uint64(6) {
		me, other := a, b
		if i%2 == 1 {
			me, other = b, a
		}
		me.connect(10 + i)
		// The other's word of a connection that is over comes late, and is not taken.
		other.mu.Lock()
		u := other.side.Hello(10 + i - 1)
		other.mu.Unlock()
		u.Want = 0
		if d, err := p.Up(t.Context(), tenant, "b1", *u); d != nil || err != nil {
			t.Errorf("a word of another connection: %v, %v", d, err)
		}
		p.patch(t, "b1", fmt.Sprint("app.n", i), i)
		me.set("app.edge", fmt.Sprint("of ", i))
		me.pending()
		until(t, "both have the same", func() bool {
			tw := p.twin(t, "b1")
			return tw.InSync && me.effective(fmt.Sprint("app.n", i)) == fmt.Sprint(i)
		})
		me.cut()
	}
	tw := p.twin(t, "b1")
	if tw.Version != 7 || len(tw.Keys) != 8 {
		t.Errorf("%+v", tw)
	}
	if s := p.Stats(); s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}

// TestDeaf: what a board was sent and never got is sent again, less and less often, until
// it has it; a board that is not there is not tried.
func TestDeaf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		a := &air{boards: map[string]*board{}}
		x := New(Config{Rows: reg.Twins(), Sign: sign, Open: unsign, Courier: a, Log: slog.New(slog.DiscardHandler)})
		p := &place{Twins: x, reg: reg, air: a}
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan error, 1)
		go func() { over <- p.Run(ctx) }()
		b := a.add(t, x, "b1")
		b.connect(1)
		gone := a.add(t, x, "b2")
		gone.connect(1)
		time.Sleep(time.Second)
		gone.cut()
		a.deaf = true
		p.patch(t, "b1", "app.rate", 1)
		p.patch(t, "b2", "app.rate", 1)
		time.Sleep(3 * time.Minute)
		if n := x.Stats(); n.Pushed < 5 || n.Pushed > 8 || n.Open != 1 {
			t.Errorf("in three minutes: %+v", n)
		}
		a.mu.Lock()
		a.deaf = false
		a.mu.Unlock()
		time.Sleep(lastAgain + time.Second)
		if b.effective("app.rate") != "1" || !p.twin(t, "b1").InSync || x.Stats().Open != 0 {
			t.Errorf("%s, %+v, %+v", b.effective("app.rate"), p.twin(t, "b1"), x.Stats())
		}
		a.deaf = true
		p.patch(t, "b1", "app.rate", 2)
		time.Sleep(time.Hour)
		if n := x.Stats(); n.Open != 0 || n.Pushed > 60 {
			t.Errorf("it is tried for ever: %+v", n)
		}
		b.cut()
		b.connect(2) // the answer to its hello is lost
		time.Sleep(time.Second)
		a.mu.Lock()
		a.deaf = false
		a.mu.Unlock()
		if time.Sleep(lastAgain); b.effective("app.rate") != "2" {
			t.Error("an answer was lost, and nothing was sent again")
		}
		b.cut()
		cancel()
		if err := errors.Join(<-over, reg.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestSignedAnew: where the key is dropped that signed a twin, the board gets a version
// that it can take.
func TestSignedAnew(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir())
	dropped := true
	p.cfg.Takes = func(envelope []byte) bool {
		s, err := unsign(envelope)
		var st wire.Statement
		if err != nil || schema.Decode(s, &st) != nil {
			t.Error("no envelope of ours")
		}
		return !dropped || st.Version > 1
	}
	p.patch(t, "b1", "app.rate", 1)
	b := p.air.add(t, p.Twins, "b1")
	b.connect(1)
	until(t, "applied", func() bool { tw := p.twin(t, "b1"); return tw.InSync && tw.Version == 2 })
	if b.effective("app.rate") != "1" {
		t.Error(b.effective("app.rate"))
	}
}

// TestKilled kills a server between what it stores and what it answers: what somebody was
// told is there, and the boards come to the same.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := &air{boards: map[string]*board{}}
	b := a.add(t, nil, "b1")
	told := 0
	for turn := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), "FULMAR_TWINS_CHILD="+dir, fmt.Sprint("FULMAR_TWINS_FROM=", told))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := 0
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var n int
			if _, err := fmt.Sscanf(sc.Text(), "told %d", &n); err == nil {
				told = n
				if lines++; lines > turn {
					time.Sleep(time.Duration(turn) * 700 * time.Microsecond) // a kill has no right moment
					break
				}
			} else if strings.HasPrefix(sc.Text(), "wrong") {
				t.Error(sc.Text())
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	p := openOn(t, dir, a)
	tw := p.twin(t, "b1")
	var n int
	if err := json.Unmarshal(tw.Keys[0].Value, &n); err != nil || n < told {
		t.Fatalf("%d was told, %d is there", told, n)
	}
	sets := 0
	for _, k := range p.kinds(t, "b1") {
		if k == "set app.n" {
			sets++
		}
	}
	if _, rows, err := p.reg.Audit().Verify(t.Context(), audit.Head{}); err != nil || rows != int64(sets) || uint64(sets) != tw.Version {
		t.Errorf("%d versions, %d in the history, %d in the audit log, %v", tw.Version, sets, rows, err)
	}
	b.to = p.Twins
	b.connect(9)
	until(t, "healed", func() bool { return p.twin(t, "b1").InSync && b.effective("app.n") == fmt.Sprint(n) })
}

// TestChild is the server that TestKilled kills: it edits, and tells of each edit once it
// may.
func TestChild(t *testing.T) {
	dir := os.Getenv("FULMAR_TWINS_CHILD")
	if dir == "" {
		t.Skip("of TestKilled")
	}
	p := open(t, dir)
	var n int
	_, _ = fmt.Sscan(os.Getenv("FULMAR_TWINS_FROM"), &n)
	if tw := p.twin(t, "b1"); len(tw.Keys) > 0 {
		var have int
		if err := json.Unmarshal(tw.Keys[0].Value, &have); err != nil || have < n {
			fmt.Printf("wrong: %d was told, %d is there\n", n, have)
		}
		n = have
	}
	for range 100 {
		n++
		p.patch(t, "b1", "app.n", n)
		fmt.Printf("told %d\n", n)
	}
}

// TestMany: 10,000 boards are changed in batches, each told of; those that cannot be are
// named and hold nobody up.
func TestMany(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir())
	full := patchOf()
	for i := range 22 {
		full.Set[fmt.Sprint("app.k", i)] = []byte(`"` + strings.Repeat("x", 1000) + `"`)
	}
	boards := 2000
	if !testing.Short() {
		boards = MaxBoards
	}
	var names []string
	for i := range boards {
		names = append(names, fmt.Sprintf("b%05d", i))
	}
	bad := []string{names[7], names[boards/2]}
	if _, err := p.PatchMany(t.Context(), ann(), bad, full, nil); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var seen []int
	done, err := p.PatchMany(t.Context(), ann(), names, patchOf("app.more", strings.Repeat("y", 1000), "app.mode", strings.Repeat("z", 1000)), func(n int) { seen = append(seen, n) })
	if err != nil || len(done) != boards || len(seen) != boards/editBatch || seen[len(seen)-1] != boards {
		t.Fatalf("%d, %d, %v", len(done), len(seen), err)
	}
	t.Logf("%d boards in %v, %d commits", boards, time.Since(began).Round(time.Millisecond), p.Stats().Commits)
	var failed []string
	for _, c := range done {
		if c.Error != "" {
			failed = append(failed, c.Board)
		} else if c.Version != 1 {
			t.Errorf("%+v", c)
		}
	}
	if !slices.Equal(failed, bad) {
		t.Errorf("%q failed", failed)
	}
	if open, err := p.Unsettled(t.Context(), tenant); err != nil || len(open) != boards || !open[names[0]].Pending {
		t.Errorf("%d, %v", len(open), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done, err = p.PatchMany(ctx, ann(), names, patchOf("app.mode", 1), func(n int) {
		if n == 300 {
			cancel()
		}
	})
	if err != nil || done[299].Error != "" || done[300].Error == "" || done[boards-1].Error == "" {
		t.Errorf("given up midway: %v, %+v", err, done[295:305])
	}
}

// TestBatch: one that cannot be written does not hold up those that are written with it,
// and is known not to stand.
func TestBatch(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir())
	bad := errors.New("not this one")
	jobs := make([]*job, 3)
	for i := range jobs {
		jobs[i] = &job{done: make(chan error, 1), apply: func(ctx context.Context, tx *sql.Tx) error {
			if err := p.cfg.Rows.Saw(ctx, tx, twinrows.Key{Tenant: tenant, Board: fmt.Sprint("b", i)}, time.UnixMilli(5)); err != nil || i != 1 {
				return err
			}
			return bad
		}}
	}
	q := New(p.cfg) // without a writer of its own: the batch is made here
	q.queue <- jobs[1]
	q.queue <- jobs[2]
	q.write(jobs[0])
	for i, j := range jobs {
		if err := <-j.done; errors.Is(err, bad) != (i == 1) || err != nil && i != 1 {
			t.Errorf("%d: %v", i, err)
		}
		at, err := p.cfg.Rows.Seen(t.Context(), twinrows.Key{Tenant: tenant, Board: fmt.Sprint("b", i)})
		if err != nil || at.IsZero() != (i == 1) {
			t.Errorf("%d: %v, %v", i, at, err)
		}
	}
}

// TestForget: a board that is wiped has no twin; where it comes back it brings what this
// fleet signed, and an edit before that is lost with nobody's word.
func TestForget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := open(t, dir)
	b := p.air.add(t, p.Twins, "b1")
	b.connect(1)
	p.patch(t, "b1", "app.a", 1)
	p.patch(t, "b1", "app.b", 1)
	until(t, "applied", func() bool { return p.twin(t, "b1").InSync && p.twin(t, "b1").Applied == 2 })
	b.cut()
	if err := p.Forget(t.Context(), tenant, "b1"); err != nil {
		t.Fatal(err)
	}
	if tw := p.twin(t, "b1"); tw.Version != 0 || len(tw.Keys) != 0 || !tw.Seen.IsZero() || len(p.kinds(t, "b1")) != 0 {
		t.Errorf("%+v", tw)
	}
	p.patch(t, "b1", "app.c", 1)
	b.connect(2)
	until(t, "back", func() bool { return p.twin(t, "b1").InSync })
	if b.effective("app.a") != "1" || b.effective("app.b") != "1" || b.effective("app.c") != "1" {
		t.Errorf("%s, %s, %s", b.effective("app.a"), b.effective("app.b"), b.effective("app.c"))
	}
	seen := p.twin(t, "b1").Seen
	b.cut()
	p.end()
	if q := open(t, dir); !q.twin(t, "b1").Seen.Equal(seen.Truncate(time.Millisecond)) {
		t.Errorf("heard at %v, written %v", seen, q.twin(t, "b1").Seen)
	}
}
