// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"fulmar/fleet/access"
	"fulmar/fleet/registry"
	"fulmar/fleet/releases/releasetest"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/rollout/state"
	"fulmar/ota/release"
	"fulmar/schema"
	"fulmar/schema/ota"
	"fulmar/schema/rest"
	"fulmar/trust"
)

// updated is a board over real MQTT that installs what it is assigned.
type updated struct {
	t    *testing.T
	name string
	cert tls.Certificate
	set  *trust.KeySet

	mu       sync.Mutex
	c        mqtt.Client
	running  string
	seen     uint64 // highest attempt
	done     ota.State
	installs []string // releases, for good

	fate atomic.Value // "takes", "breaks", "hangs", "silent"
}

func (b *updated) topic(ch schema.Channel) string {
	return schema.Topic{Tenant: "default", Board: b.name, Channel: ch}.String()
}

// join enrols and connects a board.
func (c *town) join(t *testing.T, name string, can string) *updated {
	t.Helper()
	secret, err := c.reg.NewJoinToken(t.Context(), registry.DefaultTenant, "", 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key, csr := newCSR(t)
	code, reply, raw := c.post(t, schema.EnrolPath, schema.EnrolRequest{Token: secret, Board: name, CSR: csr, Mode: "software"}, nil)
	if code != http.StatusOK {
		t.Fatalf("enrol: %d %s", code, raw)
	}
	b := &updated{t: t, name: name, cert: certOf(t, reply.Certificate, key), running: "1.8"}
	b.fate.Store("takes")
	b.connect(c, can)
	return b
}

func (b *updated) connect(c *town, can string) {
	b.t.Helper()
	client, err := connect(c.MQTTAddr(), b.name, c.ca.Pool(), b.cert)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	b.c, b.set = client, c.keys.Set()
	b.mu.Unlock()
	b.t.Cleanup(func() { client.Disconnect(0) })
	if tok := client.Subscribe(b.topic(schema.ChanAssign), 1, func(_ mqtt.Client, m mqtt.Message) { go b.assigned(m.Payload()) }); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		b.t.Fatal("not subscribed", tok.Error())
	}
	facts := map[string]string{"model": "nx16"}
	if can != "" {
		facts[schema.FactCan] = can
	}
	p, err := schema.Encode(&schema.Hello{V: 1, Board: b.name, Release: b.running, Conn: uint64(time.Now().UnixMicro()), Now: schema.Time{Boot: 1}, Facts: facts})
	if err != nil {
		b.t.Fatal(err)
	}
	if tok := client.Publish(b.topic(schema.ChanHello), 1, false, p); !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		b.t.Fatal("no hello", tok.Error())
	}
}

func (b *updated) say(s ota.State) {
	b.mu.Lock()
	s.V, s.Release = 1, b.running
	c := b.c
	b.mu.Unlock()
	if p, err := schema.Encode(&s); err == nil {
		c.Publish(b.topic(schema.ChanOTAState), 1, false, p).WaitTimeout(5 * time.Second)
	}
}

func (b *updated) assigned(p []byte) {
	var a ota.Assignment
	if err := schema.Decode(p, &a); err != nil {
		b.t.Errorf("%s: %v", b.name, err)
		return
	}
	if err := b.directed(&a); err != nil {
		b.t.Errorf("%s: %v", b.name, err)
		return
	}
	b.mu.Lock()
	if a.Attempt <= b.seen { // told again
		again := b.done
		b.mu.Unlock()
		if again.Attempt == a.Attempt {
			b.say(again)
		}
		return
	}
	b.seen = a.Attempt
	b.mu.Unlock()
	s := ota.State{Rollout: a.Rollout, Attempt: a.Attempt}
	fate, _ := b.fate.Load().(string)
	end := func(word, running, reason string) {
		b.mu.Lock()
		b.running = running
		s.State, s.Reason = word, reason
		b.done = s
		if word == ota.Committed {
			b.installs = append(b.installs, running)
		}
		b.mu.Unlock()
		b.say(s)
	}
	if a.Act == ota.Undo {
		end(ota.RolledBack, a.Before, "")
		return
	}
	if fate == "silent" {
		return
	}
	for _, w := range []string{ota.Fetching, ota.Trial} {
		s.State = w
		b.say(s)
		time.Sleep(20 * time.Millisecond)
	}
	switch fate {
	case "breaks":
		end(ota.RolledBack, a.Before, "worker crashed 3 times")
	case "takes":
		end(ota.Committed, a.Release, "")
	}
}

func (b *updated) has() (running string, installs int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running, len(b.installs)
}

func caller(who string, r ...rest.Right) access.Caller {
	rights, _ := rest.RightsOf(r...)
	return access.Caller{Tenant: registry.DefaultTenant, Who: who, Author: who, Rights: rights}
}

func (c *town) until(t *testing.T, id string, states ...state.State) *rest.Rollout {
	t.Helper()
	var r *rest.Rollout
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // real sockets, real seconds
		var err error
		if r, err = c.rolls.Get(t.Context(), registry.DefaultTenant, id); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(states, state.State(r.State)) {
			return r
		}
	}
	t.Fatalf("not within a minute %v: %s, %s; %v", states, r.State, r.Sentence, r.Counts)
	return nil
}

// released serves a fleet that knows release 1.9.
func released(t *testing.T) *town {
	t.Helper()
	dir := t.TempDir()
	key := releasetest.Key(t, dir)
	c := serveIn(t, dir)
	releasetest.Known(t.Context(), t, c.updates.Releases, registry.DefaultTenant, "1.9", key, "agent", "worker")
	return c
}

// directed holds an assignment to what a board goes by: the director's word for this board
// and attempt, on the very manifest that release keys signed.
func (b *updated) directed(a *ota.Assignment) error {
	d := a.Directive
	if d == nil {
		return errors.New("no directive")
	}
	proof := trust.Proof{Envelope: d.Proof.Envelope, Index: int(d.Proof.Index), Count: int(d.Proof.Count), Path: d.Proof.Path}
	if err := b.set.VerifyBatch(proof, d.Statement, trust.TypeAssignment, 0); err != nil {
		return err
	}
	w, err := release.ParseDirective(d.Statement)
	if err != nil {
		return err
	}
	if w.Board != b.name || w.Tenant != "default" || w.Attempt != a.Attempt || w.Release != a.Release || w.Component != a.Component || w.Rollout != a.Rollout {
		return fmt.Errorf("directive %+v for attempt %d", w, a.Attempt)
	}
	if a.Act == ota.Undo {
		if w.Act != release.ActUndo {
			return fmt.Errorf("told to undo, directed to %s", w.Act)
		}
		return nil
	}
	o, err := release.Open(b.set, a.Envelope, 0)
	if err == nil && (o.Hash != w.Manifest || w.Act != release.ActInstall) {
		err = fmt.Errorf("directed to %s manifest %s, sent is %s", w.Act, w.Manifest, o.Hash)
	}
	return err
}

func spec() rest.RolloutSpec {
	return rest.RolloutSpec{
		Component: "agent", Release: "1.9",
		Waves:  []rest.WaveSpec{{Count: 3, SoakS: 1}, {Percent: 100, SoakS: 1}},
		Limits: rest.Limits{AckS: 1, InstallS: 3, TrialS: 2, WaveS: 5, UndoS: 10},
	}
}

// TestRolloutOverMQTT: real boards' sessions, real database. A good release reaches all
// boards that can take it, once; a server restart in between changes nothing of that.
func TestRolloutOverMQTT(t *testing.T) {
	t.Parallel()
	c := released(t)
	dir := c.dir
	var list []*updated
	for i := range 10 {
		list = append(list, c.join(t, fmt.Sprintf("b%02d", i), "updates"))
	}
	old := c.join(t, "old", "")
	ann := caller("ann", rest.RolloutsWrite, rest.BoardsRead)
	f, err := c.rolls.Forecast(t.Context(), ann, spec())
	for end := time.Now().Add(5 * time.Second); (err != nil || f.Boards < 10) && time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // the look is of a second ago
		f, err = c.rolls.Forecast(t.Context(), ann, spec())
	}
	if err != nil || f.Boards != 10 || len(f.LeftOut) != 1 || !strings.Contains(f.LeftOut[0].Reason, "no updates possible") || f.LeftOut[0].Names[0] != "old" {
		t.Fatalf("%+v, %v", f, err)
	}
	r, err := c.rolls.Create(t.Context(), ann, spec())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.Waves[0].Names, r.Waves[0].Names) {
		t.Errorf("forecast of %v, planned %v", f.Waves[0].Names, r.Waves[0].Names)
	}
	if _, err := c.rolls.Act(t.Context(), ann, r.ID, r.Version+1, rest.RolloutAction{Do: "start"}); !errors.Is(err, runner.ErrStale) {
		t.Errorf("a stale version: %v", err)
	}
	if _, err := c.rolls.Act(t.Context(), caller("eve", rest.BoardsRead), r.ID, -1, rest.RolloutAction{Do: "start"}); !errors.Is(err, access.ErrNotAllowed) {
		t.Errorf("without the right: %v", err)
	}
	if _, err := c.rolls.Act(t.Context(), ann, r.ID, r.Version, rest.RolloutAction{Do: "start"}); err != nil {
		t.Fatal(err)
	}
	c.until(t, r.ID, state.Soak, state.Judging)
	if n := len(installed(list)); n != 3 {
		t.Errorf("%d boards have it after the first wave of 3", n)
	}
	c.stop()
	c = serveIn(t, dir)
	for _, b := range list {
		b.connect(c, "updates")
	}
	done := c.until(t, r.ID, state.Done, state.Halted)
	if done.State != "done" || done.Counts["good"] != 10 || !strings.Contains(done.Sentence, "10 boards run 1.9; 0 of 10 failed, that shows at least 74.1 %") {
		t.Errorf("%s: %s %v", done.State, done.Sentence, done.Counts)
	}
	for _, b := range list {
		if running, n := b.has(); running != "1.9" || n != 1 {
			t.Errorf("%s runs %s, installed %d times", b.name, running, n)
		}
	}
	if running, _ := old.has(); running != "1.8" {
		t.Error("a board that cannot was told")
	}
	if list, err := c.rolls.List(t.Context(), registry.DefaultTenant); err != nil || len(list) != 1 || list[0].Counts["good"] != 10 {
		t.Errorf("%+v, %v", list, err)
	}
}

func installed(list []*updated) (out []string) {
	for _, b := range list {
		if running, _ := b.has(); running == "1.9" {
			out = append(out, b.name)
		}
	}
	return out
}

// TestBadRolloutOverMQTT: boards that break, hang and say nothing. It halts in its wave,
// boards in between go back, the rest is untouched; and what was halted is tried again.
func TestBadRolloutOverMQTT(t *testing.T) {
	t.Parallel()
	c := released(t)
	var list []*updated
	for i := range 9 {
		list = append(list, c.join(t, fmt.Sprintf("b%02d", i), "updates"))
	}
	ann := caller("ann", rest.RolloutsWrite, rest.BoardsRead)
	s := spec()
	s.Waves[0].Count = 5
	var calls atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer hook.Close()
	time.Sleep(1100 * time.Millisecond) // the look at the fleet is at most a second old
	r, err := c.rolls.Create(t.Context(), ann, s)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*updated{}
	for _, b := range list {
		by[b.name] = b
	}
	first := r.Waves[0].Names
	by[first[0]].fate.Store("breaks")
	by[first[1]].fate.Store("hangs")
	by[first[2]].fate.Store("silent")
	if _, err := c.rolls.Act(t.Context(), ann, r.ID, -1, rest.RolloutAction{Do: "start"}); err != nil {
		t.Fatal(err)
	}
	over := c.until(t, r.ID, state.Halted, state.Done)
	if over.State != "halted" || over.Counts["failed"] != 2 || over.Counts["waiting"] != 4 || !strings.Contains(over.Sentence, "at best") || !strings.Contains(over.Sentence, "4 boards untouched") {
		t.Fatalf("%s: %s %v", over.State, over.Sentence, over.Counts)
	}
	if n := installed(list); len(n) != 0 {
		t.Errorf("%v still run it", n)
	}
	// A hook into the server's own network is refused; it halts before the wave.
	other := spec()
	other.Component, other.Before = "worker", &rest.Hook{URL: hook.URL}
	h, err := c.rolls.Create(t.Context(), ann, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.rolls.Act(t.Context(), ann, h.ID, -1, rest.RolloutAction{Do: "start"}); err != nil {
		t.Fatal(err)
	}
	if h = c.until(t, h.ID, state.Halted, state.Done); h.State != "halted" || !strings.Contains(h.Sentence, "private address") || calls.Load() != 0 {
		t.Errorf("%s: %s, %d calls", h.State, h.Sentence, calls.Load())
	}
	for _, b := range list {
		b.fate.Store("takes")
	}
	if _, err := c.rolls.Act(t.Context(), ann, r.ID, -1, rest.RolloutAction{Do: "retry", Without: first[0]}); err != nil {
		t.Fatal(err)
	}
	over = c.until(t, r.ID, state.Halted, state.Done)
	if over.State != "done" || over.Counts["good"] != 8 || over.Counts["out"] != 1 || len(over.Rolls) != 1 {
		t.Errorf("tried again: %s: %s %v", over.State, over.Sentence, over.Counts)
	}
	all, err := c.rolls.Boards(t.Context(), registry.DefaultTenant, r.ID)
	if err != nil || len(all) != 9 {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.Board == first[1] && (len(b.Past) < 2 || b.Past[0].To != "good") {
			t.Errorf("the past of %s: %+v", b.Board, b.Past)
		}
	}
	if _, err := c.rolls.Create(t.Context(), ann, rest.RolloutSpec{Component: "agent", Release: "1.9", Query: "state = ("}); !errors.Is(err, runner.ErrQuery) {
		t.Errorf("a bad query: %v", err)
	}
	var wrong *plan.Error
	if _, err := c.rolls.Create(t.Context(), ann, rest.RolloutSpec{Component: "agent", Release: "1.9", After: []string{"r-99"}}); !errors.As(err, &wrong) {
		t.Errorf("after one that is not there: %v", err)
	}
}
