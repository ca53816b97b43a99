// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fulmar/fleet/access"
	"fulmar/fleet/registry"
	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/book"
	"fulmar/fleet/rollout/plan"
	"fulmar/schema/ota"
	"fulmar/schema/rest"
)

// hall is a runner over a real registry, with boards that take what they get.
type hall struct {
	*Rollouts
	t    *testing.T
	reg  *registry.Registry
	stop func()

	mu     sync.Mutex
	told   map[string][]ota.Assignment
	deaf   bool
	values func(board string) float64
}

func open(t *testing.T, private bool) *hall {
	t.Helper()
	return openIn(t, t.TempDir(), private, 0)
}

func openIn(t *testing.T, dir string, private bool, resend int64) *hall {
	t.Helper()
	reg, err := registry.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := &hall{t: t, reg: reg, told: map[string][]ota.Assignment{}}
	h.Rollouts = New(Config{Fleet: h, Courier: h, Metrics: h, Private: private, Log: slog.New(slog.DiscardHandler)}, book.New(reg.Rollouts(), nil))
	if resend > 0 {
		h.resend = resend
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = reg.Close()
	})
	t.Cleanup(h.stop)
	return h
}

// Boards gives twelve boards of two sites; the query is a prefix of their names.
func (h *hall) Boards(_ context.Context, _, q, _ string) (out []plan.Candidate, err error) {
	if q == "(" {
		return nil, fmt.Errorf("%w: (", ErrQuery)
	}
	for i := range 12 {
		name := fmt.Sprintf("%c%02d", "ab"[i%2], i)
		if strings.HasPrefix(name, q) {
			out = append(out, plan.Candidate{Board: name, Site: name[:1], Able: true, Reachable: true, Release: "1.8"})
		}
	}
	return out, nil
}

// Assign lets a board take what it gets at once.
func (h *hall) Assign(tenant, board string, a ota.Assignment) error {
	if err := a.Validate(); err != nil {
		return err
	}
	h.mu.Lock()
	h.told[board] = append(h.told[board], a)
	deaf := h.deaf
	h.mu.Unlock()
	if deaf {
		return nil
	}
	go func() {
		s := ota.State{V: 1, Rollout: a.Rollout, Attempt: a.Attempt, State: ota.Committed, Release: a.Release}
		if a.Act == ota.Undo {
			s.State, s.Release = ota.RolledBack, a.Before
		}
		_ = h.Report(context.Background(), tenant, board, s)
	}()
	return nil
}

// Instant gives the values of a guard.
func (h *hall) Instant(context.Context, string, string, time.Time) (out []Sample, err error) {
	all, _ := h.Boards(context.Background(), "", "", "")
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range all {
		out = append(out, Sample{Labels: map[string]string{"board": c.Board}, Value: h.values(c.Board)})
	}
	return out, nil
}

func (h *hall) has(board string) bool {
	list := h.told[board]
	return len(list) > 0 && list[len(list)-1].Act == ota.Install
}

func by(who, author string, r ...rest.Right) access.Caller {
	rights, err := rest.RightsOf(r...)
	if err != nil {
		panic(err) // a test's own words
	}
	return access.Caller{Tenant: registry.DefaultTenant, Who: who, Author: author, Rights: rights}
}

func ann() access.Caller { return by("ann", "ann", rest.RolloutsWrite, rest.RolloutsApprove) }

func (h *hall) create(change func(s *rest.RolloutSpec)) *rest.Rollout {
	h.t.Helper()
	s := rest.RolloutSpec{Component: "agent", Release: "1.9", Waves: []rest.WaveSpec{{Count: 4, SoakS: 1}, {Percent: 100, SoakS: 1}}}
	change(&s)
	r, err := h.Create(h.t.Context(), ann(), s)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *hall) act(who access.Caller, id, do string) error {
	_, err := h.Act(h.t.Context(), who, id, -1, rest.RolloutAction{Do: do})
	return err
}

func (h *hall) until(id string, states ...string) *rest.Rollout {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // real seconds: the runner ticks
		r, err := h.Get(h.t.Context(), registry.DefaultTenant, id)
		if err != nil {
			h.t.Fatal(err)
		}
		if slices.Contains(states, r.State) {
			return r
		}
		if time.Now().After(end) {
			h.t.Fatalf("not within a minute %v: %s, %s", states, r.State, r.Sentence)
		}
	}
}

// TestGuardHalts: boards that all install it, and get slower.
func TestGuardHalts(t *testing.T) {
	t.Parallel()
	h := open(t, false)
	h.values = func(b string) float64 {
		if h.has(b) {
			return 20
		}
		return 8
	}
	r := h.create(func(s *rest.RolloutSpec) { s.Guards = []rest.Guard{{Name: "latency", Expr: "x", Better: "lower"}} })
	if err := h.act(ann(), r.ID, "start"); err != nil {
		t.Fatal(err)
	}
	r = h.until(r.ID, "halted", "done")
	if r.State != "halted" || r.Counts["undone"] != 4 || r.Counts["waiting"] != 8 || !strings.Contains(r.Sentence, "latency: 20 on 4 boards, worse than 8 of 8 boards without it") {
		t.Errorf("%s: %s %v", r.State, r.Sentence, r.Counts)
	}
	if v := r.Waves[0].Verdict; v == nil || v.Outcome != "bad" || len(v.Guards) != 1 || v.Guards[0].Outcome != "bad" {
		t.Errorf("%+v", v)
	}
}

// TestHooks: called before and after each wave; a no ends it, and so does silence.
func TestHooks(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := calls.Add(1); {
		case r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json":
			t.Errorf("%s %v", r.Method, r.Header)
		case n == 4:
			http.Error(w, "the line is not free", http.StatusConflict)
		}
	}))
	defer srv.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection is not seen
		select {
		case <-r.Context().Done():
		case <-time.After(20 * time.Second):
		}
	}))
	defer slow.Close()
	h := open(t, true)
	r := h.create(func(s *rest.RolloutSpec) {
		s.Before, s.Behind = &rest.Hook{URL: srv.URL + "/?secret=x"}, &rest.Hook{URL: srv.URL}
	})
	if err := h.act(ann(), r.ID, "start"); err != nil {
		t.Fatal(err)
	}
	r = h.until(r.ID, "halted", "done")
	if r.State != "halted" || r.Wave != 2 || !strings.Contains(r.Sentence, "the hook after the wave said no") || !strings.Contains(r.Sentence, "the line is not free") || calls.Load() != 4 {
		t.Errorf("%s in wave %d after %d calls: %s", r.State, r.Wave, calls.Load(), r.Sentence)
	}
	r = h.create(func(s *rest.RolloutSpec) { s.Before = &rest.Hook{URL: slow.URL + "/?secret=x", LimitS: 1} })
	if err := h.act(ann(), r.ID, "start"); err != nil {
		t.Fatal(err)
	}
	if r = h.until(r.ID, "halted", "wave", "done"); r.State != "halted" || !strings.Contains(r.Sentence, "no answer within 1 s") || strings.Contains(r.Sentence, "secret") {
		t.Errorf("%s: %s", r.State, r.Sentence)
	}
}

// TestRestartAsksAgain: a server that ends while a hook runs calls it again when it is
// there again, and what was open goes on.
func TestRestartAsksAgain(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if calls.Add(1) == 1 {
			<-r.Context().Done()
		}
	}))
	defer srv.Close()
	dir := t.TempDir()
	h := openIn(t, dir, true, 0)
	r := h.create(func(s *rest.RolloutSpec) { s.Before = &rest.Hook{URL: srv.URL} })
	if err := h.act(ann(), r.ID, "start"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); calls.Load() == 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	h.stop()
	h = openIn(t, dir, true, 0)
	if r := h.until(r.ID, "done", "halted"); r.State != "done" || calls.Load() != 3 {
		t.Errorf("%s after %d calls: %s", r.State, calls.Load(), r.Sentence)
	}
}

// TestWhoMay: rights, the second person, and callers with a limit.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	h := open(t, false)
	r := h.create(func(s *rest.RolloutSpec) { s.Approval = true })
	ctx := t.Context()
	if _, err := h.Create(ctx, by("eve", "eve", rest.BoardsRead), r.Spec); !errors.Is(err, access.ErrNotAllowed) {
		t.Errorf("created without the right: %v", err)
	}
	if err := h.act(by("eve", "eve", rest.RolloutsApprove), r.ID, "start"); !errors.Is(err, access.ErrNotAllowed) {
		t.Errorf("started without the right: %v", err)
	}
	if err := h.act(by("ben", "ben", rest.RolloutsWrite), r.ID, "start"); err != nil {
		t.Fatal(err)
	}
	for _, who := range []access.Caller{ann(), by("token line-4", "ann", rest.RolloutsApprove), by("ben", "ben", rest.RolloutsApprove)} {
		if err := h.act(who, r.ID, "approve"); !errors.Is(err, rollout.ErrSamePerson) {
			t.Errorf("%s approves: %v", who.Who, err)
		}
	}
	if err := h.act(by("cleo", "cleo", rest.RolloutsWrite), r.ID, "approve"); !errors.Is(err, access.ErrNotAllowed) {
		t.Errorf("approved without the right: %v", err)
	}
	other := by("dan", "dan", rest.RolloutsWrite)
	other.Tenant = "elsewhere"
	if err := h.act(other, r.ID, "abort"); !errors.Is(err, book.ErrUnknown) {
		t.Errorf("another tenant's: %v", err)
	}
	some := by("token a", "dan", rest.RolloutsWrite, rest.BoardsRead)
	some.Boards = "a"
	if err := h.act(some, r.ID, "abort"); !errors.Is(err, access.ErrNotAllowed) {
		t.Errorf("beyond the limit: %v", err)
	}
	s := r.Spec
	s.Component, s.Approval = "worker", false
	mine, err := h.Create(ctx, some, s)
	if err != nil || mine.Counts["waiting"] != 6 {
		t.Fatalf("%+v, %v", mine, err)
	}
	if err := h.act(some, mine.ID, "start"); err != nil {
		t.Errorf("within the limit: %v", err)
	}
	if err := h.act(ann(), mine.ID, "eat"); err == nil {
		t.Error("eat is no act")
	}
	if err := h.act(by("cleo", "cleo", rest.RolloutsApprove), r.ID, "approve"); err != nil {
		t.Error(err)
	}
}

// TestOneAtATime: boards of one rollout are left out of another of the same component,
// also where both were planned before either was started; a rollback passes over boards
// that another has changed since.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	h := open(t, false)
	one := h.create(func(s *rest.RolloutSpec) { s.Query = "a" })
	two := h.create(func(s *rest.RolloutSpec) { s.Release = "2.0" })
	if err := h.act(ann(), one.ID, "start"); err != nil {
		t.Fatal(err)
	}
	if err := h.act(ann(), two.ID, "start"); err != nil {
		t.Fatal(err)
	}
	if f, err := h.Forecast(t.Context(), by("eve", "eve", rest.BoardsRead), rest.RolloutSpec{Component: "agent", Release: "3"}); !errors.Is(err, plan.ErrNoBoards) || len(f.LeftOut) != 2 {
		t.Errorf("%+v, %v", f, err)
	}
	if r := h.until(two.ID, "done"); r.Counts["good"] != 6 || r.Counts["out"] != 6 {
		t.Errorf("%v", r.Counts)
	}
	h.until(one.ID, "done")
	three := h.create(func(s *rest.RolloutSpec) { s.Query, s.Release = "a0", "3.0" })
	if err := h.act(ann(), three.ID, "start"); err != nil {
		t.Fatal(err)
	}
	three = h.until(three.ID, "done")
	n := three.Counts["good"]
	if err := h.act(ann(), one.ID, "rollback"); err != nil {
		t.Fatal(err)
	}
	if r := h.until(one.ID, "rolled-back"); r.Counts["out"] != n || r.Counts["undone"] != 6-n || n == 0 {
		t.Errorf("%d were changed since: %v, %s", n, r.Counts, r.Sentence)
	}
}

// TestAfter: the worker comes before the model.
func TestAfter(t *testing.T) {
	t.Parallel()
	h := open(t, false)
	one := h.create(func(s *rest.RolloutSpec) { s.Component = "worker" })
	two := h.create(func(s *rest.RolloutSpec) { s.Component, s.After = "model/x", []string{one.ID} })
	three := h.create(func(s *rest.RolloutSpec) { s.Component, s.After = "model/y", []string{two.ID} })
	for _, id := range []string{two.ID, three.ID, one.ID} {
		if err := h.act(ann(), id, "start"); err != nil {
			t.Fatal(err)
		}
	}
	if r := h.until(two.ID, "waiting", "wave"); r.State != "waiting" {
		t.Errorf("it does not wait: %s", r.State)
	}
	h.until(two.ID, "wave")
	if r := h.until(one.ID, "done", "wave"); r.State != "done" {
		t.Errorf("it began before the first was done: %s", r.State)
	}
	if err := h.act(ann(), two.ID, "abort"); err != nil {
		t.Fatal(err)
	}
	if r := h.until(three.ID, "aborted", "wave"); !strings.Contains(r.Sentence, two.ID+", which comes first, is aborted") {
		t.Errorf("%s: %s", r.State, r.Sentence)
	}
}

// TestNotStoredNotAcknowledged: a word that cannot be stored is an error for its board,
// and nothing is told of it.
func TestNotStoredNotAcknowledged(t *testing.T) {
	t.Parallel()
	h := open(t, false)
	h.deaf = true
	r := h.create(func(*rest.RolloutSpec) {})
	if err := h.act(ann(), r.ID, "start"); err != nil {
		t.Fatal(err)
	}
	var board string
	var a ota.Assignment
	for end := time.Now().Add(10 * time.Second); a.Attempt == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		h.mu.Lock()
		for b, list := range h.told {
			board, a = b, list[0]
		}
		h.mu.Unlock()
	}
	_ = h.reg.Close() // the disk is gone
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.Report(ctx, registry.DefaultTenant, board, ota.State{V: 1, Rollout: a.Rollout, Attempt: a.Attempt, State: ota.Committed, Release: "1.9"}); err == nil {
		t.Error("a word that was not stored is acknowledged")
	}
	if err := h.Report(ctx, registry.DefaultTenant, board, ota.State{V: 1, Rollout: "nonsense", Attempt: 1, State: ota.Trial}); err != nil {
		t.Errorf("of what is no rollout nothing can be made: %v", err)
	}
}

// TestOrdersAreRepeated: to a board that has not answered when it connects, and never
// with another attempt.
func TestOrdersAreRepeated(t *testing.T) {
	t.Parallel()
	h := open(t, false)
	h.deaf = true
	r := h.create(func(s *rest.RolloutSpec) { s.Envelope = []byte("signed") })
	if err := h.act(ann(), r.ID, "start"); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, list := range h.told {
			n += len(list)
			for _, a := range list {
				if a.Attempt != list[0].Attempt || string(a.Envelope) != "signed" {
					t.Errorf("%+v after %+v", a, list[0])
				}
			}
		}
		return n
	}
	wait := func(n int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); count() < n; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d orders, wants %d", count(), n)
			}
		}
	}
	wait(4)
	for b := range maps(h) {
		h.Connected(registry.DefaultTenant, b)
		h.Connected("elsewhere", b)
	}
	wait(8)
	if n := count(); n > 10 { // the timer may have told some
		t.Errorf("%d orders for 4 boards that connected once", n)
	}
}

// TestTimerRepeats: a board that stays connected and has not answered is told again.
func TestTimerRepeats(t *testing.T) {
	t.Parallel()
	h := openIn(t, t.TempDir(), false, 1)
	h.deaf = true
	r := h.create(func(*rest.RolloutSpec) {})
	if err := h.act(ann(), r.ID, "start"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		h.mu.Lock()
		n := len(h.told)
		for _, list := range h.told {
			if len(list) < 3 {
				n = 0
			}
		}
		h.mu.Unlock()
		if n == 4 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("nobody is told again")
		}
	}
}

func maps(h *hall) map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]bool{}
	for b := range h.told {
		out[b] = true
	}
	return out
}

// BenchmarkWords is how many words of boards are stored a second, from 256 boards that
// each wait for their PUBACK, in a rollout over 10,000.
func BenchmarkWords(b *testing.B) {
	reg, err := registry.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer reg.Close() //nolint:errcheck // only a benchmark's
	x := New(Config{Fleet: crowd(10_000), Courier: nobody{}, Log: slog.New(slog.DiscardHandler)}, book.New(reg.Rollouts(), nil))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r, err := x.Create(ctx, ann(), rest.RolloutSpec{Component: "agent", Release: "1.9", Waves: []rest.WaveSpec{{Percent: 100}}})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := x.Act(ctx, ann(), r.ID, -1, rest.RolloutAction{Do: "start"}); err != nil {
		b.Fatal(err)
	}
	var boards []rest.RolloutBoard
	for len(boards) < 256 { // a tick sets 500 going
		all, err := x.Boards(ctx, registry.DefaultTenant, r.ID)
		if err != nil {
			b.Fatal(err)
		}
		boards = slices.DeleteFunc(all, func(b rest.RolloutBoard) bool { return b.Attempt == 0 })
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	var n atomic.Int64
	for i := range 256 {
		wg.Go(func() {
			for n.Add(1) <= int64(b.N) {
				if err := x.Report(ctx, registry.DefaultTenant, boards[i].Board, schemaState(r.ID, boards[i].Attempt)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "words/s")
}

func schemaState(id string, attempt uint64) ota.State {
	return ota.State{V: 1, Rollout: id, Attempt: attempt, State: ota.Fetching, Progress: 10}
}

type crowd int

func (n crowd) Boards(context.Context, string, string, string) (out []plan.Candidate, err error) {
	for i := range int(n) {
		out = append(out, plan.Candidate{Board: fmt.Sprintf("b%06d", i), Site: fmt.Sprint("s", i%50), Able: true, Reachable: true, Facts: map[string]string{"model": "nx16", "os": "JetPack 6"}})
	}
	return out, nil
}

type nobody struct{}

func (nobody) Assign(string, string, ota.Assignment) error { return nil }
