// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/command"
	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/commands/stage"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/commandrows"
	"fulmar/schema"
	"fulmar/schema/rest"
)

// calm makes a world without trouble, in simulated time, and runs a test in it.
func calm(t *testing.T, test func(t *testing.T, w *world), boards ...string) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, boards...)
		w.calm = true
		defer w.close()
		w.start()
		test(t, w)
	})
}

func (w *world) give(by string, s rest.CommandSpec) *rest.Command {
	w.t.Helper()
	v, err := w.srv.Give(context.Background(), person(by), s)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) get(id string) *rest.Command {
	w.t.Helper()
	v, err := w.srv.Get(context.Background(), "default", id, true, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// is holds a command to the state of its one board.
func (w *world) is(id, state string) rest.CommandBoard {
	w.t.Helper()
	v := w.get(id)
	if len(v.Boards) != 1 || v.Boards[0].State != state || v.Counts[state] != 1 {
		w.t.Fatalf("%s is %+v, wants %s", id, v, state)
	}
	return v.Boards[0]
}

func (w *world) act(by, id, action string) error {
	_, err := w.srv.Act(context.Background(), person(by), id, rest.CommandAction{Action: action, Reason: "so"})
	return err
}

func steps(b rest.CommandBoard) string {
	var out []string
	for _, e := range b.Events {
		out = append(out, e.State)
	}
	return strings.Join(out, " ")
}

// TestLife: a command waits for its board, is done at once when that comes, and what a
// person sees tells it step by step.
func TestLife(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		c := w.give("ann", rest.CommandSpec{Name: "set", Args: json.RawMessage(`{"position": 40, "ratio": 0.5, "open": true, "on": ["a"]}`), Boards: []string{"b1"}, Reason: "flush"})
		time.Sleep(2 * time.Minute)
		w.is(c.ID, rest.CommandQueued)
		w.boards["b1"].plug()
		time.Sleep(5 * time.Second)
		b := w.is(c.ID, rest.CommandDone)
		if got := steps(b); got != "queued sent accepted running done" && got != "queued sent running done" || string(b.Value) != `{"moved":1}` || b.Percent != 100 {
			t.Errorf("%s: %+v", steps(b), b)
		}
		e := w.boards["b1"].order[0].call
		var args map[string]any
		if err := schema.Decode(e.Args, &args); err != nil || fmt.Sprint(args) != "map[on:[a] open:true position:40 ratio:0.5]" || args["position"] != uint64(40) {
			t.Errorf("%v %v", args, err)
		}
		if e.By != "user/ann" || e.Actor != command.ActorFleet || e.Reason != "flush" || e.Expires != e.Issued+180_000 {
			t.Errorf("%+v", e)
		}
		if v := w.get(b.ID); v.ID != c.ID || string(v.Args) != `{"on":["a"],"open":true,"position":40,"ratio":0.5}` {
			t.Errorf("by the id of the board's: %+v", v)
		}
		list, next, err := w.srv.OfBoard(context.Background(), "default", "b1", "", 10)
		if err != nil || len(list) != 1 || next != "" || list[0].Boards[0].Board != "b1" {
			t.Errorf("%+v %v", list, err)
		}
		w.audited("command c-1: set {\"on\":[\"a\"],\"open\":true,\"position\":40,\"ratio\":0.5} to b1: flush")
	}, "b1")
}

// audited holds the end of the audit log to what was done.
func (w *world) audited(want ...string) {
	w.t.Helper()
	var got []string
	err := w.reg.Audit().Each(context.Background(), 0, func(e audit.Entry) error {
		if strings.HasPrefix(e.What, "command") {
			got = append(got, e.What+" "+e.Why)
		}
		return nil
	})
	if err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
		w.t.Errorf("the audit log has %q, wants %q, %v", got, want, err)
	}
}

// TestTimes: what no board had in time is expired, and its late word wins.
func TestTimes(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		c := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}, ValidS: 10})
		time.Sleep(12 * time.Second)
		if b := w.is(c.ID, rest.CommandExpired); b.Text != "the board was not there in time" {
			t.Errorf("%+v", b)
		}
		// It has it, and its words are lost until long after.
		b1 := w.boards["b1"]
		b1.plug()
		c = w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}, ValidS: 10})
		b1.mu.Lock()
		b1.mute = true
		b1.mu.Unlock()
		time.Sleep(65 * time.Second)
		w.is(c.ID, rest.CommandSent) // its word may be on its way
		time.Sleep(15 * time.Second)
		w.is(c.ID, rest.CommandExpired)
		b1.mu.Lock()
		b1.mute = false
		b1.mu.Unlock()
		time.Sleep(5 * time.Second)
		b := w.is(c.ID, rest.CommandDone)
		if last := b.Events[len(b.Events)-1].Text; !strings.HasPrefix(last, `late word of the board, after "expired"`) {
			t.Errorf("%q", last)
		}
		// A last word of the board stands.
		err := w.srv.Report(context.Background(), "default", "b1", command.Report{V: 1, Result: command.Result{V: 1, ID: b1.order[0].call.ID, State: command.Failed}})
		if err != nil {
			t.Error(err)
		}
		w.is(c.ID, rest.CommandDone)
		// A board that is silent is given up after a week, no earlier.
		c = w.give("ann", rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}})
		time.Sleep(25 * time.Millisecond)
		err = w.srv.Report(context.Background(), "default", "b1", command.Report{V: 1, Result: command.Result{V: 1, ID: mustID(t, w.get(c.ID).Boards[0].ID), State: command.Accepted}})
		b1.stop()
		time.Sleep(stage.LostAfter - time.Minute)
		if err != nil || rest.CommandFinal(w.get(c.ID).Boards[0].State) {
			t.Errorf("%v %+v", err, w.get(c.ID).Boards)
		}
		time.Sleep(10 * time.Minute)
		w.is(c.ID, rest.CommandUnknown)
		b1.start()
	}, "b1")
}

func mustID(t *testing.T, s string) command.ID {
	t.Helper()
	id, err := command.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestSecondPerson: what wants one does not leave before somebody else agreed.
func TestSecondPerson(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		w.boards["b1"].plug()
		c := w.give("ann", rest.CommandSpec{Name: "release", Boards: []string{"b1"}, ValidS: 60})
		time.Sleep(10 * time.Minute)
		w.is(c.ID, rest.CommandWaiting)
		if err := w.act("ann", c.ID, Approve); !errors.Is(err, ErrSamePerson) {
			t.Error(err)
		}
		token := access.Caller{Tenant: "default", Who: "token 1", Author: "ann", Rights: rest.Operator.Rights()}
		if _, err := w.srv.Act(context.Background(), token, c.ID, rest.CommandAction{Action: Approve}); !errors.Is(err, ErrSamePerson) {
			t.Error(err)
		}
		viewer := access.Caller{Tenant: "default", Who: "eve", Rights: rest.Viewer.Rights()}
		if _, err := w.srv.Act(context.Background(), viewer, c.ID, rest.CommandAction{Action: Approve}); !errors.Is(err, access.ErrNotAllowed) {
			t.Error(err)
		}
		other := access.Caller{Tenant: "other", Who: "eve", Rights: rest.Admin.Rights()}
		if _, err := w.srv.Act(context.Background(), other, c.ID, rest.CommandAction{Action: Approve}); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
		limited := access.Caller{Tenant: "default", Who: "eve", Rights: rest.Admin.Rights(), Boards: "b2"}
		if _, err := w.srv.Act(context.Background(), limited, c.ID, rest.CommandAction{Action: Approve}); !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
		if err := w.act("bob", c.ID, Approve); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		w.is(c.ID, rest.CommandDone)
		if a := w.get(c.ID).Approval; a == nil || a.By != "bob" || a.Refused || a.Reason != "so" {
			t.Errorf("%+v", a)
		}
		if err := w.act("bob", c.ID, Approve); !errors.Is(err, ErrState) {
			t.Error(err)
		}
		c = w.give("ann", rest.CommandSpec{Name: "release", Boards: []string{"b1"}})
		if err := w.act("bob", c.ID, Refuse); err != nil {
			t.Fatal(err)
		}
		w.is(c.ID, rest.CommandRefused)
		c = w.give("ann", rest.CommandSpec{Name: "release", Boards: []string{"b1"}})
		time.Sleep(approvalFor + 2*time.Second)
		w.is(c.ID, rest.CommandExpired)
		if n := len(w.boards["b1"].order); n != 1 {
			t.Errorf("%d effects", n)
		}
		w.audited("command c-1: release to b1", "command approve c-1: release of ann to 1 board: so", "command c-2: release to b1", "command refuse c-2: release of ann to 1 board: so", "command c-3: release to b1")
	}, "b1")
}

// TestCancel: at once before it left; by a command of its own after, and then it is not
// begun whatever was under way.
func TestCancel(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		b1 := w.boards["b1"]
		c := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
		if err := w.act("bob", c.ID, Cancel); err != nil {
			t.Fatal(err)
		}
		w.is(c.ID, rest.CommandCancelled)
		if err := w.act("bob", c.ID, Cancel); !errors.Is(err, ErrState) {
			t.Error(err)
		}
		// Sent to a board that lost it.
		b1.plug()
		lost := w.give("ann", rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}})
		b1.mu.Lock()
		b1.dead = true // it hears nothing
		b1.mu.Unlock()
		time.Sleep(100 * time.Millisecond)
		b1.stop()
		w.is(lost.ID, rest.CommandSent)
		if err := w.act("bob", lost.ID, Cancel); err != nil {
			t.Fatal(err)
		}
		if err := w.act("bob", lost.ID, Cancel); !errors.Is(err, ErrState) {
			t.Error(err)
		}
		if err := w.act("bob", "c-3", Cancel); !errors.Is(err, ErrState) { // of a cancel
			t.Error(err)
		}
		b1.start()
		b1.plug()
		time.Sleep(time.Minute)
		if b := w.is(lost.ID, rest.CommandCancelled); steps(b) != "queued sent sent cancelled" || b.Text != "cancelled before the board had it" {
			t.Errorf("%s: %+v", steps(b), b)
		}
		// While it runs.
		c = w.give("ann", rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}})
		time.Sleep(60 * time.Millisecond)
		if err := w.act("bob", c.ID, Cancel); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if b := w.is(c.ID, rest.CommandCancelled); b.Code != command.CodeCancelled || !strings.Contains(b.Text, "bob") {
			t.Errorf("%+v", b)
		}
		// Overtaken, and cancelled before it left again.
		lost = w.give("ann", rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}})
		time.Sleep(5 * time.Millisecond)
		b1.unplug()
		b1.stop() // before it comes
		w.give("ann", rest.CommandSpec{Name: "trigger-safety-shutdown", Boards: []string{"b1"}})
		time.Sleep(time.Second)
		err := w.srv.Report(context.Background(), "default", "b1", command.Report{V: 1, Result: command.Result{V: 1, ID: mustID(t, w.get(lost.ID).Boards[0].ID), State: command.Refused, Code: command.CodeReplayed}})
		if err == nil {
			err = w.act("bob", lost.ID, Cancel)
		}
		if err != nil {
			t.Fatal(err)
		}
		b1.start()
		b1.plug()
		time.Sleep(time.Minute)
		w.is(lost.ID, rest.CommandCancelled)
		if len(b1.order) != 1 || b1.order[0].call.Name != "trigger-safety-shutdown" {
			t.Errorf("%+v", b1.order)
		}
	}, "b1")
}

// TestUrgent: a safety command does not wait behind one that the board does not answer,
// and that one is done after it.
func TestUrgent(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		b1 := w.boards["b1"]
		b1.plug()
		first := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
		b1.mu.Lock()
		b1.dead = true
		b1.mu.Unlock()
		time.Sleep(50 * time.Millisecond) // sent, and lost
		b1.mu.Lock()
		b1.dead = false
		b1.mu.Unlock()
		second := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
		stop := w.give("ann", rest.CommandSpec{Name: "trigger-safety-shutdown", Boards: []string{"b1"}})
		time.Sleep(5 * time.Second)
		w.is(stop.ID, rest.CommandDone)
		w.is(first.ID, rest.CommandSent)
		w.is(second.ID, rest.CommandQueued)
		time.Sleep(time.Minute)
		w.is(first.ID, rest.CommandDone)
		w.is(second.ID, rest.CommandDone)
		var names []string
		for _, e := range b1.order {
			names = append(names, e.call.Name)
		}
		if strings.Join(names, " ") != "trigger-safety-shutdown set set" || mustID(t, w.get(first.ID).Boards[0].ID) != b1.order[1].call.ID {
			t.Errorf("%v", names)
		}
	}, "b1")
}

// TestHello: what was lost with a connection leaves again with the next one, at once; within
// one it leaves again too, later.
func TestHello(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		b1 := w.boards["b1"]
		for _, again := range []bool{true, false} {
			b1.plug()
			c := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
			b1.mu.Lock()
			b1.dead = true // it hears nothing
			b1.mu.Unlock()
			time.Sleep(time.Second)
			w.is(c.ID, rest.CommandSent)
			b1.mu.Lock()
			b1.dead = false
			b1.mu.Unlock()
			if again {
				b1.unplug()
				b1.plug()
				time.Sleep(5 * time.Second)
			} else {
				time.Sleep(5 * time.Second)
				w.is(c.ID, rest.CommandSent)
				time.Sleep(2 * resendAfter)
			}
			w.is(c.ID, rest.CommandDone)
		}
	}, "b1")
}

// TestAway: what was given while a board was away, and not known to be, leaves at once when it
// comes back, as often as it goes.
func TestAway(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		b1 := w.boards["b1"]
		for range 3 {
			b1.plug()
			time.Sleep(time.Second)
			b1.unplug()
			c := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
			time.Sleep(time.Second)
			b1.plug()
			time.Sleep(5 * time.Second)
			w.is(c.ID, rest.CommandDone)
			b1.unplug()
		}
	}, "b1")
}

// TestReplayed: a board that has heard of higher numbers, from a fleet whose clock was
// wrong, gets a number that it takes, and does each command once.
func TestReplayed(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		b1 := w.boards["b1"]
		wild := command.Command{V: 1, ID: newID(time.Now()), Tenant: "default", Board: "b1", Name: "set", Actor: command.ActorFleet, Seq: uint64(time.Now().AddDate(3, 0, 0).UnixMilli()), Expires: uint64(time.Now().Add(time.Hour).UnixMilli())}
		p, err := schema.Encode(&wild)
		if err != nil {
			t.Fatal(err)
		}
		b1.hear(p)
		time.Sleep(5 * time.Second)
		b1.plug()
		c := w.give("ann", rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}})
		time.Sleep(10 * time.Second)
		w.is(c.ID, rest.CommandDone)
		if len(b1.order) != 2 {
			t.Errorf("%d effects", len(b1.order))
		}
	}, "b1")
}

// TestForged: a board's word counts for its own commands alone.
func TestForged(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		c := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
		id := mustID(t, w.get(c.ID).Boards[0].ID)
		ctx := context.Background()
		result := func(id command.ID) command.Result {
			return command.Result{V: 1, ID: id, State: command.Done, Text: "forged"}
		}
		given := func(tenant, board, actor string) *command.Command {
			return &command.Command{V: 1, ID: id, Tenant: tenant, Board: board, Name: "set", Actor: actor, Seq: 1}
		}
		for _, r := range []command.Report{
			{V: 1, Result: result(id)},
			{V: 1, Result: result(id), Command: given("default", "b2", "local/eve")},
			{V: 1, Result: result(id), Command: given("default", "b1", "local/eve")},
		} {
			if err := w.srv.Report(ctx, "default", "b2", r); err != nil {
				t.Error(err) // it would say it for ever
			}
			if err := w.srv.Report(ctx, "other", "b1", r); err != nil {
				t.Error(err)
			}
		}
		w.is(c.ID, rest.CommandQueued)
		id = command.ID{1}
		for _, x := range []*command.Command{given("default", "b1", "local/eve"), given("other", "b2", "local/eve")} {
			if err := w.srv.Report(ctx, "default", "b2", command.Report{V: 1, Result: result(id), Command: x}); err != nil {
				t.Error(err)
			}
		}
		big := result(command.ID{2})
		big.Value = make([]byte, command.MaxValue+1)
		if err := w.srv.Report(ctx, "default", "b2", command.Report{V: 1, Result: big}); err == nil {
			t.Error("an answer over its bound is taken")
		}
		if heads, _ := w.all(); len(heads) != 1 {
			t.Errorf("%d commands", len(heads))
		}
	}, "b1", "b2")
}

// TestWhoIsBehind: a board is told whether a person gave a command, or a program for one.
func TestWhoIsBehind(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		w.boards["b1"].plug()
		for i, c := range []struct{ who, author, want string }{
			{"ann", "ann", "user/ann"},
			{"token line-4", "ann", "token/line-4"},
			{"token line-4", "token line-4", "token/line-4"},
			{"token user/ann", "ann", "token/user/ann"},
			{"robot", "ann", "token/robot"},
		} {
			by := access.Caller{Tenant: "default", Who: c.who, Author: c.author, Rights: rest.Operator.Rights()}
			if _, err := w.srv.Give(context.Background(), by, rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Second)
			w.boards["b1"].mu.Lock()
			heard := w.boards["b1"].order
			w.boards["b1"].mu.Unlock()
			if len(heard) != i+1 || heard[i].call.By != c.want {
				t.Errorf("%s of %s: the board hears %+v, wants %s", c.who, c.author, heard, c.want)
			}
		}
	}, "b1")
}

// TestLocal: what is given on a board is a command here too, whatever comes twice.
func TestLocal(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		r := command.Report{
			V: 1, Given: schema.Time{Wall: 1_700_000_000_000}, Result: command.Result{V: 1, ID: command.ID{7}, State: command.Accepted},
			Command: &command.Command{V: 1, ID: command.ID{7}, Tenant: "default", Board: "b1", Name: "set", Args: []byte{0xa1, 0x61, 'p', 1}, Actor: "local/m.kern", Seq: 3, Reason: "leak"},
		}
		for _, s := range []command.State{command.Accepted, command.Accepted, command.Running, command.Accepted, command.Done, command.Done} {
			r.Result.State = s
			if err := w.srv.Report(ctx, "default", "b1", r); err != nil {
				t.Fatal(err)
			}
		}
		b := w.is("c-1", rest.CommandDone)
		v := w.get("c-1")
		if !v.Local || v.Actor != "local/m.kern" || v.Reason != "leak" || string(v.Args) != `{"p":1}` || steps(b) != "accepted running done" || !v.Expires.IsZero() {
			t.Errorf("%+v", v)
		}
		if b.Events[0].Text != "given on the board at 2023-11-14 22:13:20 UTC by its clock" {
			t.Errorf("%+v", b.Events)
		}
		// Results that were dropped on the board are told as one.
		gap := command.Report{V: 1, Result: command.Result{V: 1, ID: command.ID{8}, State: command.Done, Text: "5 results were dropped"}, Command: &command.Command{V: 1, ID: command.ID{8}, Name: "results-dropped", Actor: "board", Seq: 5}}
		if err := w.srv.Report(ctx, "default", "b1", gap); err != nil {
			t.Fatal(err)
		}
		w.is("c-2", rest.CommandDone)
		w.audited()
	}, "b1")
}

// TestRestore: a fleet that comes from a backup begins nothing that it finds open, and
// learns from its boards what became of it; what they do not know any more is unknown.
// New commands are done, though the numbers of the lost fleet were higher.
func TestRestore(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		b1, b2 := w.boards["b1"], w.boards["b2"]
		b2.plug()
		done := w.give("ann", rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}, ValidS: 3600})
		never := w.give("ann", rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}, ValidS: 3600})
		backup := filepath.Join(w.dir, "backup")
		if err := os.Mkdir(backup, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := w.reg.Database().Write.Exec(`VACUUM INTO ?`, filepath.Join(backup, "registry.db")); err != nil {
			t.Fatal(err)
		}
		if err := w.act("bob", never.ID, Cancel); err != nil {
			t.Fatal(err)
		}
		b1.plug()
		time.Sleep(5 * time.Second)
		w.is(done.ID, rest.CommandDone)
		lost := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
		time.Sleep(5 * time.Second)
		w.is(lost.ID, rest.CommandDone)
		w.kill()
		_ = w.reg.Close()
		w.openRegistry(backup)
		if err := w.reg.Restored(context.Background(), time.Now()); err != nil {
			t.Fatal(err)
		}
		w.start()
		b1.plug()
		time.Sleep(time.Minute)
		w.is(done.ID, rest.CommandDone)
		w.is(never.ID, rest.CommandUnknown) // the lost fleet may have given it
		fresh := w.give("ann", rest.CommandSpec{Name: "pulse", Boards: []string{"b1"}})
		if fresh.ID == lost.ID {
			t.Errorf("%s names two", fresh.ID)
		}
		time.Sleep(5 * time.Second)
		w.is(fresh.ID, rest.CommandDone)
		if len(b1.order) != 3 {
			t.Errorf("%+v", b1.order)
		}
		for id, n := range b1.effects {
			if len(n) != 1 {
				t.Errorf("%s was done %d times", id, len(n))
			}
		}
		w.judge(true)
	}, "b1", "b2")
}

// TestBounds: a flood ends with a word, and what is kept is bounded.
func TestBounds(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		var err error
		n := 0
		for ; n < 10_000 && err == nil; n++ {
			_, err = w.srv.Give(ctx, person("ann"), rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
		}
		if !errors.Is(err, ErrTooMany) || n != maxQueue+1 {
			t.Fatalf("after %d: %v", n, err)
		}
		w.boards["b1"].plug()
		time.Sleep(4 * time.Minute)
		if len(w.boards["b1"].order) < 100 { // two seconds each at the most
			t.Errorf("%d effects", len(w.boards["b1"].order))
		}
		time.Sleep(10 * time.Minute)
		w.judge(false)
		for _, s := range []rest.CommandSpec{
			{Name: "Set", Boards: []string{"b1"}},
			{Name: "cancel", Boards: []string{"b1"}},
			{Name: "set"},
			{Name: "set", Boards: []string{"b1"}, Query: "all"},
			{Name: "set", Boards: []string{"b9"}},
			{Name: "set", Query: "none"},
			{Name: "set", Boards: []string{"b1"}, ValidS: -1},
			{Name: "set", Boards: []string{"b1"}, ValidS: 604_801},
			{Name: "set", Boards: []string{"b1"}, Args: json.RawMessage(`[]`)},
			{Name: "set", Boards: []string{"b1"}, Args: json.RawMessage(`{"a":"` + strings.Repeat("x", command.MaxArgs) + `"}`)},
			{Name: "set", Boards: []string{"b1"}, Reason: strings.Repeat("x", 257)},
		} {
			if _, err := w.srv.Give(ctx, person("ann"), s); !errors.Is(err, &Error{}) && !errors.Is(err, ErrNoBoards) {
				t.Errorf("%+v: %v", s, err)
			}
		}
		say, err := w.srv.Plan(ctx, person("ann"), rest.CommandSpec{Name: "pulse", Query: "all"})
		if err != nil || say != "3 boards would get pulse, to be begun within 5m0s. 1 would refuse it, they have no such command: b2. 1 have not told which commands they have: b3. 2 are not connected and get it when they are: b2, b3." {
			t.Errorf("%s %v", say, err)
		}
		kinds, err := w.srv.Commands.Kinds(ctx, "default", nil)
		if err != nil || fmt.Sprint(kinds) != "[{pulse 1 false} {set 2 false}]" {
			t.Errorf("%v %v", kinds, err)
		}
	}, "b1", "b2", "b3")
}

// TestGone: what waits for a board that is removed is not for the next one of its name.
func TestGone(t *testing.T) {
	calm(t, func(t *testing.T, w *world) {
		c := w.give("ann", rest.CommandSpec{Name: "set", Boards: []string{"b1"}})
		if err := w.srv.Gone(context.Background(), "default", "b1"); err != nil {
			t.Fatal(err)
		}
		w.is(c.ID, rest.CommandCancelled)
		w.boards["b1"].plug()
		time.Sleep(time.Minute)
		if len(w.boards["b1"].order) > 0 {
			t.Error("done")
		}
	}, "b1")
}

// many is a fleet of which nobody has to be there.
type many struct {
	names []string
	sent  int
}

func (m *many) Boards(context.Context, access.Caller, string) ([]string, error) { return m.names, nil }

func (m *many) Kinds(context.Context, string) (map[string][]string, error) { return nil, nil }

func (m *many) SendCommand(string, string, string, []byte) error {
	m.sent++
	return nil
}

// BenchmarkTenThousand is one command to 10,000 boards, from when it is given to when the
// last board is sent it and its word is stored; on a disk that flushes.
func BenchmarkTenThousand(b *testing.B) {
	const n = 10_000
	ctx := context.Background()
	for b.Loop() {
		b.StopTimer()
		reg, err := registry.Open(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		m := &many{}
		for i := range n {
			m.names = append(m.names, fmt.Sprintf("b%05d", i))
		}
		c, err := New(ctx, Config{Rows: reg.Commands(), Sign: func(p []byte) ([]byte, error) { return p, nil }, Courier: m, Fleet: m})
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range m.names {
			c.Hello("default", name)
		}
		b.StartTimer()
		began := time.Now()
		if _, err := c.Give(ctx, person("ann"), rest.CommandSpec{Name: "set", Query: "all"}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/give")
		began = time.Now()
		for m.sent < n {
			c.pump(ctx)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/send")
		began = time.Now()
		for _, state := range []command.State{command.Accepted, command.Done} {
			var ids []word
			for id, it := range c.items {
				ids = append(ids, word{key{"default", it.Board.Board}, &command.Report{V: 1, Result: command.Result{V: 1, ID: id, State: state}}, make(chan error, 1)})
			}
			for len(ids) > 0 {
				k := min(maxBatch, len(ids))
				for _, w := range ids[1:k] {
					c.words <- w
				}
				c.take(ctx, ids[0])
				ids = ids[k:]
			}
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/words")
		if len(c.items) > 0 {
			b.Fatalf("%d are open", len(c.items))
		}
		b.StopTimer()
		_ = reg.Close()
		b.StartTimer()
	}
}

var _ Rows = (*commandrows.Table)(nil)
