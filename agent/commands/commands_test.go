// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/command"
	"fulmar/device/schedule"
	"fulmar/schema"
)

// value gives what a handler answered as JSON.
func value(t testing.TB, r command.Result) string {
	t.Helper()
	b, err := command.ToJSON(r.Value)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// TestBuiltins: each command does what it says, and refuses what it should.
func TestBuiltins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		at := schema.NewClock(7, 0).Now().Mono
		st.news.Put("thermal.cpu_celsius", 51.5, schema.QualityGood, at)
		st.news.Put("thermal.gpu_celsius", 0, schema.QualityOffline, at)
		st.news.Put("cpu.load", 0.25, schema.QualityGood, at)
		time.Sleep(2 * time.Second)
		running, _ := st.local("local/eve", "set-output", `{"output":"heater","value":1}`)
		st.ends(running, command.Done, "")
		for _, c := range []struct {
			name, args string
			state      command.State
			code, say  string
		}{
			{"set-valve-position", `{"valve":"inlet","percent":50}`, command.Done, "", `{"output":"inlet","unit":"%","value":50}`},
			{"set-valve-position", `{"valve":"drain","percent":5}`, command.Done, "", `{"output":"drain","unit":"percent","value":5}`},
			{"set-valve-position", `{"valve":"inlet","percent":101}`, command.Refused, command.CodeArgs, "percent is 101, wants 0 to 100 %"},
			{"set-valve-position", `{"valve":"heater","percent":1}`, command.Refused, "not-a-valve", "give set-output"},
			{"set-valve-position", `{"valve":"x","percent":1}`, command.Refused, "no-such-output", "it has drain, heater, inlet"},
			{"set-output", `{"output":"heater","value":4000}`, command.Done, "", `{"output":"heater","unit":"W","value":4000}`},
			{"set-output", `{"output":"heater","value":6000}`, command.Failed, "out-of-range", "over 5000"},
			{"set-output", `{"output":"heater"}`, command.Refused, command.CodeArgs, "value is missing"},
			{"trigger-safety-shutdown", `{"reason":"smoke"}`, command.Done, "", `{"active":true,"by":"local/eve: smoke"}`},
			{"set-output", `{"output":"heater","value":1}`, command.Failed, "safety-shutdown", "in force"},
			{"release-safety-shutdown", ``, command.Done, "", `{"active":false}`},
			{"set-output", `{"output":"heater","value":1}`, command.Done, "", `{"output":"heater","unit":"W","value":1}`},
			{"read-sensor-batch", `{"sensors":["thermal.*","nope"]}`, command.Done, "", `{"none":["nope"],"values":{"thermal.cpu_celsius":{"age_s":2,"quality":"good","value":51.5},"thermal.gpu_celsius":{"age_s":2,"quality":"offline"}}}`},
			{"read-sensor-batch", `{"sensors":"cpu.load"}`, command.Done, "", `{"values":{"cpu.load":{"age_s":2,"quality":"good","value":0.25}}}`},
			{"read-sensor-batch", `{"sensors":["["]}`, command.Refused, command.CodeArgs, "no glob"},
			{"pause-model", `{"model":"parcels","for":"10m"}`, command.Done, "", `{"key":"model.parcels.paused","lease_s":600,"value":true}`},
			{"run-model", `{"model":"parcels"}`, command.Done, "", `{"key":"model.parcels.paused","lease_s":0,"value":false}`},
			{"set-log-level", `{"level":"debug","for":60}`, command.Done, "", `{"key":"log.level","lease_s":60,"value":"debug"}`},
			{"set-log-level", `{"level":"loud"}`, command.Refused, command.CodeArgs, "wants debug, info, warn, error"},
			{"set-sampling", `{"group":"fast","period":"200ms"}`, command.Done, "", `{"key":"sample.fast.period","lease_s":0,"value":"200ms"}`},
			{"set-sampling", `{"group":"none","period":"200ms"}`, command.Failed, command.CodeFailed, "there is no group none"},
			{"set-sampling", `{"group":"fast","period":"1us"}`, command.Refused, command.CodeArgs, "wants 0.01 to 86400 s"},
			{"snapshot", `{"camera":"cam0"}`, command.Done, "", `{"picture":"cam0-1.jpg"}`},
			{"snapshot", `{"camera":"cam1"}`, command.Failed, command.CodeFailed, "no camera cam1"},
			{"restart", `{"part":"worker"}`, command.Done, "", ""},
			{"restart", `{"part":"moon"}`, command.Refused, command.CodeArgs, "wants worker, agent"},
			{"cancel", `{"id":"` + running.String() + `"}`, command.Done, "", `{"state":"done"}`},
			{"cancel", `{"id":"7"}`, command.Refused, command.CodeArgs, "32 hex digits"},
			{"cancel", `{"id":"` + strings.Repeat("0f", 16) + `"}`, command.Failed, command.CodeFailed, "no command of that id"},
			{"fly", ``, command.Refused, command.CodeUnknown, "no command fly"},
		} {
			id, r := st.local("local/eve", c.name, c.args)
			if r.State == command.Accepted {
				r = st.ends(id, c.state, c.code)
			}
			said := r.Text
			if c.state == command.Done {
				said = value(t, r)
			}
			if r.State != c.state || r.Code != c.code || !strings.Contains(said, c.say) || c.state == command.Done && said != c.say {
				t.Errorf("%s %s: %v %s %q %s", c.name, c.args, r.State, r.Code, r.Text, value(t, r))
			}
		}
		if got := st.set.set["model.parcels.paused"]; got != "false for 0s by local/eve" {
			t.Errorf("set %q", got)
		}
		if st.inf.restarts != 1 {
			t.Errorf("the worker was restarted %d times", st.inf.restarts)
		}
	})
}

// TestDiagnostics: the archive stays below its bound, holds what fits and says what not.
func TestDiagnostics(t *testing.T) {
	t.Parallel()
	st := newStation(t)
	id, _ := st.local("local/eve", "collect-diagnostics", "")
	st.ends(id, command.Done, "")
	st.mu.Lock()
	defer st.mu.Unlock()
	b := st.kept["diagnostics-"+id.String()+".tar.gz"]
	if len(b) == 0 || len(b) > maxArchive {
		t.Fatalf("%d bytes", len(b))
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(text)
	}
	if got["health.json"] != `{"ok":true}` || len(got["log.txt"]) != maxPart || !strings.HasSuffix(got["log.txt"], "a line\n") || got["noise"] != "" ||
		!strings.Contains(got["cut.txt"], "noise: left out") || !strings.Contains(got["cut.txt"], "log.txt: its last") {
		t.Errorf("health %q, log of %d bytes, noise of %d, %q", got["health.json"], len(got["log.txt"]), len(got["noise"]), got["cut.txt"])
	}
}

// TestManyValues: an answer of more values than fit says how many are left out, and is
// taken by the fleet.
func TestManyValues(t *testing.T) {
	t.Parallel()
	n, most := schedule.NewLatest(schema.NewClock(1, 0)), 3*schema.MaxSeries
	for i := range most {
		n.Put(strings.Repeat("x", 40)+"."+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676)), 1e-7, schema.QualityGood, 0)
	}
	out := batch(n.All(), nil)
	b, err := schema.Encode(out)
	if err != nil || len(b) > command.MaxValue {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if out.LeftOut+len(out.Values) != most || len(out.Values) < 50 {
		t.Errorf("%d given, %d left out", len(out.Values), out.LeftOut)
	}
}

// TestRestartAgent: the program ends, and the next one tells that it was done.
func TestRestartAgent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		id, e := st.f.order(t, "restart", `{"part":"agent"}`)
		st.s.Give(e)
		time.Sleep(time.Minute)
		st.mu.Lock()
		if len(st.stopped) != 1 || !strings.Contains(st.stopped[0], "user/ann") {
			t.Fatalf("stopped %q", st.stopped)
		}
		st.mu.Unlock()
		time.Sleep(time.Hour) // long past what it was valid for
		st.start()
		st.connect()
		if r := st.ends(id, command.Done, ""); value(t, r) != `{"release":"1.2.3"}` {
			t.Errorf("%s", value(t, r))
		}
		time.Sleep(time.Second)
		if n := len(st.stopped); n != 1 {
			t.Errorf("stopped %d times", n)
		}
		if r := st.reports(id); len(r) == 0 || r[len(r)-1].Result.State != command.Done || r[0].Command != nil {
			t.Errorf("told %+v", r)
		}
	})
}

// TestPartition: what is given on the board while the fleet is away is done, kept over a
// restart, and told when it is back, with what was given.
func TestPartition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		st.connect()
		const orders = 20
		st.far = 50 * time.Millisecond
		for range orders {
			id, e := st.f.order(t, "set-output", `{"output":"heater","value":7}`)
			st.s.Give(e)
			st.ends(id, command.Done, "")
			time.Sleep(time.Second)
			var states []command.State
			for _, r := range st.reports(id) {
				states = append(states, r.Result.State)
			}
			if !slices.Equal(states, []command.State{command.Accepted, command.Running, command.Done}) {
				t.Fatalf("told %v", states)
			}
		}
		st.cut()
		synctest.Wait()
		valve, _ := st.local("local/eve", "set-valve-position", `{"valve":"inlet","percent":0}`)
		st.ends(valve, command.Done, "")
		rule, _ := st.local("rule/overheat", "trigger-safety-shutdown", `{"reason":"tj over 95"}`)
		st.ends(rule, command.Done, "")
		time.Sleep(17 * time.Minute)
		st.stop()
		st.start()
		again, _ := st.local("rule/overheat", "trigger-safety-shutdown", ``)
		st.ends(again, command.Done, "")
		if n := len(st.reports(valve)); n != 0 {
			t.Errorf("%d reports went nowhere", n)
		}
		time.Sleep(time.Minute)
		st.connect()
		time.Sleep(time.Second)
		seq := uint64(0)
		for _, id := range []command.ID{valve, rule, again} {
			rs := st.reports(id)
			if len(rs) != 1 {
				t.Fatalf("%d reports", len(rs))
			}
			r := rs[0]
			if r.Command == nil || r.Command.Board != "b" || r.Command.Reason != "a test" || r.Result.State != command.Done || r.Given.Wall == 0 || r.Begun.Wall == 0 {
				t.Errorf("%+v", r)
			}
			if id == again && r.Command.Seq <= seq {
				t.Errorf("number %d after %d over a restart", r.Command.Seq, seq)
			}
			seq = r.Command.Seq
		}
		list, err := st.s.List(context.Background(), 10)
		if err != nil || len(list) != 10 || list[0].Command.Name != "set-output" || list[9].Command.ID != again {
			t.Errorf("%d listed, %v", len(list), err)
		}
		if st.s.Stats().Told != 3 { // since the restart
			t.Errorf("%+v", st.s.Stats())
		}
	})
}

// TestWatch: who looks on sees what happens, and cannot hold it up.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := newStation(t)
		ctx, cancel := context.WithCancel(context.Background())
		w := st.s.Watch(ctx)
		var lazy []<-chan command.Report
		for range maxWatchers {
			lazy = append(lazy, st.s.Watch(ctx))
		}
		if _, ok := <-lazy[maxWatchers-1]; ok {
			t.Error("one more than may look on")
		}
		for range 3 * maxSeen {
			id, _ := st.local("local/eve", "set-output", `{"output":"heater","value":7}`)
			st.ends(id, command.Done, "")
		}
		for _, want := range []command.State{command.Accepted, command.Running, command.Done} {
			if r := <-w; r.Result.State != want || r.Command == nil || r.Command.Name != "set-output" {
				t.Errorf("%+v, wants %v", r, want)
			}
		}
		cancel()
		synctest.Wait()
		for range w { // closed
		}
	})
}

// TestNoJournal: a disk that cannot be written does not keep a board from a safety
// shutdown, and nothing else is done on it.
func TestNoJournal(t *testing.T) {
	t.Parallel()
	st := newStation(t)
	st.stop()
	if err := errors.Join(os.Remove(st.dir+"/"+JournalName), os.Mkdir(st.dir+"/"+JournalName, 0o700)); err != nil {
		t.Fatal(err)
	}
	st.start()
	id, r := st.local("local/eve", "trigger-safety-shutdown", "")
	if r.State != command.Accepted {
		t.Fatalf("%+v", r)
	}
	st.ends(id, command.Done, "")
	if _, err := st.s.Local(context.Background(), "local/eve", "set-output", arguments(t, `{"output":"heater","value":7}`), Options{}); err == nil {
		t.Error("accepted, and it is written nowhere")
	}
	if _, err := Open(Config{Dir: t.TempDir() + "/none", Log: st.config().Log}); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
	other := newStation(t)
	if _, err := Open(other.config()); err == nil {
		t.Error("two programs have one journal")
	}
}

// TestUserCommands: what a user added is one more command, its arguments checked; one that
// takes another's name or lacks something is left out, and the board starts.
func TestUserCommands(t *testing.T) {
	t.Parallel()
	st := newStation(t)
	st.stop()
	done := func(context.Context, command.Call) ([]byte, error) { return []byte{0xf5}, nil }
	cfg := st.config()
	cfg.User = []command.Offer{
		{Kind: command.Kind{Name: "lift-gate", Args: []command.Field{{Name: "gate", Type: command.Number, Required: true, Min: 1, Max: 4}}}, Handler: command.Handler{Lane: command.Long, Repeat: true, Do: done}},
		{Kind: command.Kind{Name: "restart"}, Handler: command.Handler{Do: done}},
		{Kind: command.Kind{Name: "lift-gate"}, Handler: command.Handler{Do: done}},
		{Kind: command.Kind{Name: "Bad Name"}, Handler: command.Handler{Do: done}},
		{Kind: command.Kind{Name: "nothing"}},
		{Kind: command.Kind{Name: command.NameGap}, Handler: command.Handler{Do: done}},
	}
	st.begin(cfg)
	if n := len(st.s.Kinds()); n != 14 {
		t.Errorf("%d commands: %v", n, st.s.Names())
	}
	k := st.s.Kinds()[13]
	if k.Name != "lift-gate" || !k.User || k.Lane != "long" || k.Crash != "repeat" {
		t.Errorf("%+v", k)
	}
	id, _ := st.local("local/eve", "lift-gate", `{"gate":2}`)
	st.ends(id, command.Done, "")
	if _, r := st.local("local/eve", "lift-gate", `{"gate":5}`); r.State != command.Refused || r.Code != command.CodeArgs {
		t.Errorf("%+v", r)
	}
}

// TestDry: a person asks what would be refused; nothing is done nor written down.
func TestDry(t *testing.T) {
	t.Parallel()
	st := newStation(t)
	r, err := st.s.Local(context.Background(), "local/eve", "set-output", arguments(t, `{"output":"heater","value":7}`), Options{DryRun: true})
	if err != nil || r.State != command.Done || st.bank.count() != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if list, err := st.s.List(context.Background(), 10); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := st.s.Local(context.Background(), "fleet", "cancel", nil, Options{}); err == nil {
		t.Error("somebody on the board spoke for the fleet")
	}
}

// TestValveUnits: both words of the documents for a hundredth make a valve.
func TestValveUnits(t *testing.T) {
	for unit, want := range map[string]command.State{"%": command.Done, "percent": command.Done, "W": command.Refused} {
		t.Run(unit, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newStation(t)
				st.bank.units["inlet"] = unit
				id, _ := st.local("local/eve", "set-valve-position", `{"valve":"inlet","percent":50}`)
				st.ends(id, want, map[command.State]string{command.Refused: "not-a-valve"}[want])
			})
		})
	}
}
