// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/agent/update/floor"
	"fulmar/ota"
	"fulmar/ota/release"
	"fulmar/schema"
	wire "fulmar/schema/ota"
	"fulmar/trust"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func sign(typ trust.Type, payload []byte, by ...string) []byte {
	e := must(trust.NewEnvelope(typ, payload))
	for _, name := range by {
		if err := e.Sign(keyOf(name)); err != nil {
			panic(err)
		}
	}
	return must(e.Encode())
}

func statement(typ trust.Type, b []byte, by string) *wire.Proven {
	// One of two, so that there is a path.
	p := must(trust.SignBatch(typ, [][]byte{[]byte("another's"), b}, keyOf(by)))[1]
	return &wire.Proven{Statement: b, Proof: wire.Proof{Envelope: p.Envelope, Index: uint32(p.Index), Count: uint32(p.Count), Path: p.Path}}
}

// world is a board and its fleet. The fleet signs with the keys release-N, director-N and
// freshness-N of its key set N.
type world struct {
	mu       sync.Mutex
	keys     uint64 // of the fleet
	set      *trust.KeySet
	setErr   error
	attempts map[string]uint64 // newest, as the fleet says
	floor    uint64            // as the fleet says
	away     bool              // the fleet: nothing can be sent
	silent   int               // so many questions get no answer
	late     time.Duration     // that the answer takes
	other    func(*release.Fresh)
	by       string // who signs answers, "" the fleet
	off      string

	name    string
	epoch   uint64 // floor of the board
	lost    error  // its floor
	known   map[string]uint64
	sure    bool
	asked   int
	nonces  map[string]bool
	offered []ota.Order
	refuse  error
	told    []wire.State
	in      *Intake
}

// Offer implements [Machine]: the newest attempt is known from then on.
func (w *world) Offer(o ota.Order) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	w.offered = append(w.offered, o)
	w.known[o.Component], w.sure = o.Attempt, true
	return nil
}

// Attempts implements [Machine].
func (w *world) Attempts(component string) (uint64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[component], w.sure
}

// Floor implements [trust.Floor].
func (w *world) Floor() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epoch, w.lost
}

// Raise implements [trust.Floor].
func (w *world) Raise(to uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epoch = to
	return nil
}

func envelopeOf(n uint64) []byte {
	s := &trust.KeySet{Version: n, Thresholds: map[trust.Role]int{trust.RoleRoot: 1, trust.RoleRelease: 1, trust.RoleDirector: 1, trust.RoleFreshness: 1}}
	s.Keys = append(s.Keys, trust.Key{Role: trust.RoleRoot, Public: keyOf("root").Public()})
	for _, r := range []trust.Role{trust.RoleRelease, trust.RoleDirector, trust.RoleFreshness} {
		s.Keys = append(s.Keys, trust.Key{Role: r, Public: keyOf(fmt.Sprint(r, "-", n)).Public()})
	}
	return sign(trust.TypeKeySet, must(s.Encode()), "root")
}

func (w *world) learn(n uint64) {
	e := must(trust.ParseEnvelope(envelopeOf(n)))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setErr = nil
	if w.set == nil {
		w.set = must(trust.OpenKeySet(e, sha256.Sum256(e.Unverified())))
		return
	}
	w.set = must(w.set.Next(e))
}

func (w *world) key(role string) string { return fmt.Sprint(role, "-", w.keys) }

// want is the fleet: it answers a nonce.
func (w *world) want(_ context.Context, payload []byte) error {
	q := new(wire.Want)
	if err := schema.Decode(payload, q); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	nonce := hex.EncodeToString(q.Nonce)
	if w.nonces[nonce] {
		return errors.New("a nonce came twice")
	}
	w.nonces[nonce] = true
	if w.away {
		return errors.New("no connection")
	}
	if w.silent > 0 {
		w.silent--
		return nil
	}
	f := &release.Fresh{V: 1, Tenant: "default", Board: "dock-9", Nonce: nonce, Time: 1, KeySet: w.keys, Floor: w.floor, Attempts: map[string]uint64{}}
	for k, v := range w.attempts {
		f.Attempts[k] = v
	}
	if w.other != nil {
		w.other(f)
	}
	by := w.key("freshness")
	if w.by != "" {
		by = w.by
	}
	p, late := statement(trust.TypeFreshness, must(f.Encode()), by), w.late
	go func() {
		time.Sleep(late)
		w.in.Fresh(p)
	}()
	return nil
}

func (w *world) count() (asked, offered, told int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked, len(w.offered), len(w.told)
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// run makes a board that knows key set 1 and attempt 4 of its config, and its fleet, which
// wants attempt 5; in simulated time. At its end nothing of the intake is left.
func run(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			keys: 1, attempts: map[string]uint64{"config": 5}, known: map[string]uint64{"config": 4}, sure: true,
			name: "dock-9", epoch: 2, floor: 2, nonces: map[string]bool{},
		}
		w.learn(1)
		w.in = New(Config{
			Machine: w, Floor: w, Log: slog.New(slog.DiscardHandler), Want: w.want,
			Keys: func() (*trust.KeySet, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.set, w.setErr
			},
			Name: func() (string, string) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return "default", w.name
			},
			Now: func() (uint64, bool) { return uint64(time.Now().UnixMilli()), true },
			Off: func() string {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.off
			},
			Tell: func(s wire.State) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				s.V = schema.Version
				w.told = append(w.told, s)
				return s.Validate()
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.in.Run(ctx) }()
		f(t, w)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// order is an assignment of the config; edit changes what the director signs.
func (w *world) order(attempt uint64, edit func(*release.Directive)) *wire.Assignment {
	o, _, err := release.Describe(strings.NewReader("sample: {}"))
	if err != nil {
		panic(err)
	}
	m := &release.Manifest{V: 1, Release: "1.9.0", Epoch: 3, Components: []release.Component{{Name: "config", Version: "2", Files: []release.File{{Path: "a.yaml", Object: o}}}}}
	raw := must(m.Encode())
	d := &release.Directive{V: 1, Tenant: "default", Board: "dock-9", Rollout: "r-1", Component: "config", Release: "1.9.0", Attempt: attempt, Act: release.ActInstall, Manifest: sha256.Sum256(raw)}
	if edit != nil {
		edit(d)
	}
	return &wire.Assignment{
		V: schema.Version, Rollout: "r-1", Component: "config", Release: "1.9.0", Attempt: attempt, Act: wire.Install,
		Deadline: time.Now().Add(time.Hour).UnixMilli(), Envelope: sign(trust.TypeRelease, raw, w.key("release")),
		Directive: statement(trust.TypeAssignment, must(d.Encode()), w.key("director")),
	}
}

func (w *world) give(a *wire.Assignment) {
	w.in.Give(must(schema.Encode(a)))
	synctest.Wait()
}

// wants checks the counts of questions, orders and words.
func (w *world) wants(t *testing.T, when string, asked, offered, told int) {
	t.Helper()
	synctest.Wait()
	if a, o, s := w.count(); a != asked || o != offered || s != told {
		t.Errorf("%s: asked %d times, offered %d, told %d %v; wants %d, %d, %d", when, a, o, s, w.told, asked, offered, told)
	}
}

// TestTaken: an assignment is proven, asked about once by a nonce, and handed over; the same
// one again is handed over without a question, as its word is told again.
func TestTaken(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.in.Give([]byte("no word at all"))
		w.give(w.order(5, nil))
		w.wants(t, "taken", 1, 1, 0)
		if o := w.offered[0]; o.Attempt != 5 || o.Release != "1.9.0" || o.Local || o.Deadline != time.Hour || o.Check() != nil {
			t.Errorf("offered %+v, %v", o, o.Check())
		}
		w.give(w.order(5, nil))
		w.wants(t, "again", 1, 2, 0)
		time.Sleep(time.Hour)
		w.wants(t, "later", 1, 2, 0)
		w.change(func() { w.sure = false }) // the record was lost: the same attempt is asked for, too
		w.give(w.order(5, nil))
		w.wants(t, "a board that is not sure", 2, 3, 0)
	})
}

// TestRefused: what is not for this board, was changed or is signed by others comes to nothing
// and is told with its reason, without a question to the fleet.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make  func(w *world, a *wire.Assignment)
		want  string
		after time.Duration
	}{
		"another board's": {func(w *world, a *wire.Assignment) {
			a.Directive = w.order(5, func(d *release.Directive) { d.Board = "dock-8" }).Directive
		}, "refused: the directive is for board dock-8", 0},
		"another tenant's": {func(w *world, a *wire.Assignment) {
			a.Directive = w.order(5, func(d *release.Directive) { d.Tenant = "acme" }).Directive
		}, "refused: the directive is for board dock-9 of acme", 0},
		"no directive":           {func(_ *world, a *wire.Assignment) { a.Directive = nil }, "refused: the fleet has signed no directive", 0},
		"another attempt":        {func(_ *world, a *wire.Assignment) { a.Attempt = 6 }, "refused: the assignment is attempt 6", 0},
		"another release":        {func(_ *world, a *wire.Assignment) { a.Release = "1.9.1" }, "refused: the assignment is", 0},
		"another act":            {func(_ *world, a *wire.Assignment) { a.Act = wire.Undo }, "refused: the assignment is", 0},
		"another manifest":       {func(w *world, a *wire.Assignment) { a.Directive = w.order(5, otherManifest).Directive }, "refused: the manifest is of release 1.9.0", 0},
		"a component of no name": {func(_ *world, a *wire.Assignment) { a.Component = "../x" }, "refused: component", 0},
		"an epoch that ended":    {func(w *world, _ *wire.Assignment) { w.epoch = 4 }, "refused: release of an epoch that has ended", 0},
		"a floor that is lost":   {func(w *world, _ *wire.Assignment) { w.lost = fmt.Errorf("%w: gone", floor.ErrLost) }, "refused: the board's record of the lowest release", 0},
		"updates are off":        {func(w *world, _ *wire.Assignment) { w.off = "this board takes no updates" }, "refused: this board takes no updates", 0},
		"a stranger as director": {func(_ *world, a *wire.Assignment) {
			a.Directive = statement(trust.TypeAssignment, a.Directive.Statement, "stranger")
		}, "refused: ", retry},
		"freshness as director": {func(_ *world, a *wire.Assignment) {
			a.Directive = statement(trust.TypeAssignment, a.Directive.Statement, "freshness-1")
		}, "refused: ", retry},
		"a manifest of nobody": {func(_ *world, a *wire.Assignment) {
			a.Envelope = sign(trust.TypeRelease, must(trust.ParseEnvelope(a.Envelope)).Unverified(), "director-1")
		}, "refused: ", retry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, func(t *testing.T, w *world) {
				a := w.order(5, nil)
				c.make(w, a)
				w.give(a)
				if c.after > 0 {
					w.wants(t, "at once", 0, 0, 0) // its keys may be those of a set that is on its way
					time.Sleep(c.after)
				}
				w.wants(t, "refused", 0, 0, 1)
				if s := w.told[0]; s.State != wire.Failed || s.Component != a.Component || s.Attempt != a.Attempt || s.Rollout != "r-1" || !strings.HasPrefix(s.Reason, c.want) {
					t.Errorf("told %+v, wants %q", s, c.want)
				}
				time.Sleep(time.Hour)
				w.wants(t, "later", 0, 0, 1)
			})
		})
	}
}

func otherManifest(d *release.Directive) { d.Manifest = sha256.Sum256([]byte("another")) }

// TestReplayed: an assignment of before, though both keys have signed it, is not installed, and
// nothing is told of it: the newer one's word would be covered.
func TestReplayed(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.give(w.order(3, nil))
		w.wants(t, "older than known", 0, 0, 0)
		w.change(func() { w.attempts["config"] = 9 })
		w.give(w.order(5, nil)) // the board has not seen 6 to 9, which were kept from it
		w.wants(t, "older than the fleet's", 1, 0, 0)
		w.change(func() { delete(w.attempts, "config") })
		w.give(w.order(6, nil))
		w.wants(t, "none is wanted", 2, 0, 0)
		w.change(func() { w.refuse = ota.ErrOld; w.attempts["config"] = 5 })
		w.give(w.order(5, nil))
		w.wants(t, "older than one that was offered meanwhile", 3, 0, 0)
		time.Sleep(time.Hour)
		w.wants(t, "later", 3, 0, 0)
	})
}

// TestAnswers: an answer to another nonce, to another board, or of another key is none: the
// board asks three times by three nonces, and again in five minutes.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world){
		"another nonce":    func(w *world) { w.other = func(f *release.Fresh) { f.Nonce = strings.Repeat("ab", 16) } },
		"another board":    func(w *world) { w.other = func(f *release.Fresh) { f.Board = "dock-8" } },
		"another key":      func(w *world) { w.by = "director-1" },
		"none":             func(w *world) { w.silent = 99 },
		"one that is late": func(w *world) { w.late = answerTime + time.Second }, // each one comes to the next question
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, func(t *testing.T, w *world) {
				spoil(w)
				begun := time.Now()
				w.give(w.order(5, nil))
				w.wants(t, "asked", 1, 0, 0)
				time.Sleep(answerTime - 1)
				w.wants(t, "not yet again", 1, 0, 0)
				time.Sleep(time.Nanosecond)
				w.wants(t, "again", 2, 0, 0)
				time.Sleep(answerTime)
				w.wants(t, "and again", 3, 0, 0)
				time.Sleep(answerTime + 2*time.Second)
				w.wants(t, "it waits", 3, 0, 0)
				w.change(func() { w.other, w.by, w.silent, w.late = nil, "", 0, 0 })
				time.Sleep(5*time.Minute - time.Since(begun))
				w.wants(t, "after five minutes", 4, 1, 0)
				time.Sleep(time.Hour)
				w.wants(t, "later", 4, 1, 0)
			})
		})
	}
}

// TestLateAnswer: one within its time is taken, though one to an earlier nonce came before it.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.change(func() { w.late = answerTime - time.Second })
		w.in.Fresh(statement(trust.TypeFreshness, []byte("nobody asked"), "freshness-1"))
		w.in.Fresh(nil)
		w.give(w.order(5, nil))
		w.in.Fresh(statement(trust.TypeFreshness, []byte("no answer"), "freshness-1"))
		time.Sleep(answerTime - time.Second)
		w.wants(t, "in time", 1, 1, 0)
	})
}

// TestFleetAway: without a connection it waits, the newest of each component alone, and is
// taken up with the next one; nothing is told as failed.
func TestFleetAway(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.change(func() { w.away = true; w.attempts["config"] = 7 })
		w.give(w.order(7, nil))
		w.wants(t, "away", 3, 0, 0)
		w.give(w.order(5, nil)) // comes late, takes nothing from the newer one
		w.wants(t, "an older one", 6, 0, 0)
		time.Sleep(retry)
		w.wants(t, "still away", 9, 0, 0)
		w.change(func() { w.away = false })
		w.in.Again()
		w.wants(t, "back", 10, 1, 0)
		if w.offered[0].Attempt != 7 {
			t.Errorf("offered %+v", w.offered[0])
		}
		w.in.Again()
		w.wants(t, "nothing waits", 10, 1, 0)
	})
}

// TestOlderLeavesNewer: that an older one is refused takes nothing from a newer one that waits.
func TestOlderLeavesNewer(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.change(func() { w.away = true; w.attempts["config"] = 7 })
		w.give(w.order(7, nil))
		w.change(func() { w.away = false })
		w.give(w.order(5, nil)) // the fleet says that it is old
		w.wants(t, "an older one", 4, 0, 0)
		w.in.Again()
		w.wants(t, "the newer one", 5, 1, 0)
	})
}

// TestNotYet: what a board lacks for now is waited for.
func TestNotYet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ lack, have func(w *world) }{
		"a name":                 {func(w *world) { w.name = "" }, func(w *world) { w.name = "dock-9" }},
		"a key set":              {func(w *world) { w.setErr = errors.New("no key set yet") }, func(w *world) { w.setErr = nil }},
		"its TPM":                {func(w *world) { w.lost = floor.ErrLater }, func(w *world) { w.lost = nil }},
		"room":                   {func(w *world) { w.refuse = ota.ErrFull }, func(w *world) { w.refuse = nil }},
		"a key set of the fleet": {func(w *world) { w.other = func(f *release.Fresh) { f.KeySet = 2 } }, func(w *world) { w.other = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, func(t *testing.T, w *world) {
				w.change(func() { c.lack(w) })
				w.give(w.order(5, nil))
				if _, offered, told := w.count(); offered != 0 || told != 0 {
					t.Errorf("offered %d, told %v", offered, w.told)
				}
				w.change(func() { c.have(w) })
				w.in.Again()
				synctest.Wait()
				if _, offered, told := w.count(); offered != 1 || told != 0 {
					t.Errorf("then: offered %d, told %v", offered, w.told)
				}
			})
		})
	}
}

// TestKeySetLater: after an absence an assignment of keys of the next key set may come before
// the set itself. It waits for it a minute; then, or when the set does not know them either, it
// is refused.
func TestKeySetLater(t *testing.T) {
	t.Parallel()
	rotated := func(w *world) {
		w.change(func() { w.keys = 2 })
		w.give(w.order(5, nil))
	}
	run(t, func(t *testing.T, w *world) {
		rotated(w)
		w.wants(t, "before", 0, 0, 0)
		w.learn(2)
		w.in.Again()
		w.wants(t, "after", 1, 1, 0)
	})
	run(t, func(t *testing.T, w *world) {
		rotated(w)
		time.Sleep(doubt - 1)
		w.give(w.order(5, nil)) // as the fleet says it again
		w.wants(t, "within a minute", 0, 0, 0)
		time.Sleep(time.Nanosecond)
		w.give(w.order(5, nil))
		w.wants(t, "no such key set comes", 0, 0, 1)
	})
	run(t, func(t *testing.T, w *world) {
		w.give(func() *wire.Assignment {
			w.keys = 3
			defer func() { w.keys = 2 }()
			return w.order(5, nil)
		}())
		w.learn(2)
		w.in.Again()
		w.wants(t, "a set that does not know them either", 0, 0, 1)
	})
}

// TestFloorOfTheFleet: a board whose floor was put back gets the fleet's memory of it, and
// installs nothing below.
func TestFloorOfTheFleet(t *testing.T) {
	t.Parallel()
	for epoch, c := range map[uint64]struct{ offered, told int }{3: {1, 0}, 4: {0, 1}} {
		run(t, func(t *testing.T, w *world) {
			w.change(func() { w.floor = epoch })
			w.give(w.order(5, nil))
			w.wants(t, fmt.Sprint("epoch ", epoch), 1, c.offered, c.told)
			if w.epoch != epoch {
				t.Errorf("the floor is %d, wants %d", w.epoch, epoch)
			}
		})
	}
}

// TestBounds: more than can wait is dropped, and what waits is bounded.
func TestBounds(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.change(func() { w.setErr = errors.New("no key set yet") })
		for i := range 3 * maxPending {
			a := w.order(5, nil)
			a.Component = fmt.Sprint("model/m", i)
			w.give(a)
		}
		for range 10 * maxArrived {
			w.in.Give(bytes.Repeat([]byte{0}, 10))
		}
		synctest.Wait()
		if n := len(w.in.pending); n != maxPending {
			t.Errorf("%d wait", n)
		}
	})
}

// TestAsk: who has no order at hand is told what is newest, or why not.
func TestAsk(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.change(func() { w.floor = 6 })
		if f, err := w.in.Ask(t.Context()); err != nil || f.Floor != 6 {
			t.Errorf("%+v, %v", f, err)
		}
		w.change(func() { w.away = true })
		if _, err := w.in.Ask(t.Context()); !errors.Is(err, errLater) || !strings.Contains(err.Error(), "no connection") {
			t.Error(err)
		}
		w.change(func() { w.name = "" })
		if _, err := w.in.Ask(t.Context()); err == nil {
			t.Error("a board without a name asks")
		}
	})
}
