// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"fulmar/fleet/audit"
	"fulmar/fleet/registry/twinrows"
	"fulmar/schema/rest"
	"fulmar/twin"
)

// TestThereAndBack: a change of the fleet is applied by a real board and told, one made on
// the board is seen, and the history has both.
func TestThereAndBack(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir())
	b := p.air.add(t, p.Twins, "b1")
	b.connect(1)
	until(t, "the board's word", func() bool { return p.twin(t, "b1").InSync })
	if tw := p.twin(t, "b1"); string(tw.Reported["config.log.level"]) != `"info"` || tw.Version != 0 || tw.Seen.IsZero() {
		t.Fatalf("%+v", tw)
	}
	tw := p.patch(t, "b1", "app.rate", 7, "app.never", true)
	if tw.Version != 1 {
		t.Fatalf("%+v", tw)
	}
	until(t, "applied", func() bool { tw = p.twin(t, "b1"); return tw.InSync && tw.Applied == 1 })
	if b.effective("app.rate") != "7" || b.effective("app.never") != "" {
		t.Errorf("%s, %s", b.effective("app.rate"), b.effective("app.never"))
	}
	b.set("app.edge", "here")
	b.pending()
	until(t, "seen in the fleet", func() bool { tw = p.twin(t, "b1"); return len(tw.Keys) == 3 })
	if k := tw.Keys[0]; k.Key != "app.edge" || k.From != "board" || string(k.Value) != `"here"` || k.Board[0].Author != "local/bob" || k.Policy != "edge" {
		t.Errorf("%+v", k)
	}
	if k := tw.Keys[2]; k.Key != "app.rate" || k.From != "fleet" || string(k.Value) != "7" || k.State != "applied" || k.Fleet.Author != "ann" {
		t.Errorf("%+v", k)
	}
	want := []string{"set app.never", "set app.rate", "applied ", "overridden app.edge"}
	if got := p.kinds(t, "b1"); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	var log []string
	err := p.reg.Audit().Each(t.Context(), 0, func(e audit.Entry) error {
		log = append(log, e.Who+" "+e.What+" "+e.Board+": "+e.Why)
		return nil
	})
	if err != nil || !slices.Equal(log, []string{"ann set-twin b1: why not: app.never=true, app.rate=7"}) {
		t.Errorf("%q, %v", log, err)
	}
	n := p.Stats()
	p.patch(t, "b1", "app.rate", 7)
	if again := p.Stats(); again.Edits != n.Edits || p.twin(t, "b1").Version != 1 {
		t.Errorf("set to what it is already, and it was a change")
	}
	p.patch(t, "b1", "app.rate", nil)
	until(t, "deleted", func() bool { return b.effective("app.rate") == "" && p.twin(t, "b1").InSync })
}

// TestRefusedKey: what the board says of a key is shown with it.
func TestRefusedKey(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir())
	b := p.air.add(t, p.Twins, "b1")
	b.connect(1)
	p.patch(t, "b1", "app.never", 1)
	until(t, "taken", func() bool { return p.twin(t, "b1").Applied == 1 })
	b.mu.Lock()
	_, why := b.side.Version()
	err := b.side.Report(map[string]twin.Value{"twin.refused": value(t, map[string]any{"app.never": why["app.never"]})})
	b.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	b.pending()
	until(t, "refused", func() bool { return p.twin(t, "b1").Keys[0].State == "refused" })
	if k := p.twin(t, "b1").Keys[0]; !strings.Contains(k.Refused, "nothing of the kind") {
		t.Errorf("%+v", k)
	}
	if got := p.kinds(t, "b1"); !slices.Contains(got, "refused app.never") {
		t.Errorf("%q", got)
	}
	checks, err := p.Check(t.Context(), ann(), "b1", patchOf("app.never", 1, "app.x", 2, "what.is", 3, "limit.valve.max", 4))
	if err != nil || len(checks) != 4 || checks[0].Does != "nothing" || checks[1].Does != "set" || checks[2].Why != "the board reports no output of this name" || checks[3].Does != "doubtful" {
		t.Errorf("%+v, %v", checks, err)
	}
}

// TestConflict: a key of policy hold that both sides set apart is listed with both values,
// until a person decides.
func TestConflict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		choose, value, want string
	}{{"fleet", "", "10"}, {"board", "", "20"}, {"value", "15", "15"}} {
		t.Run(c.choose, func(t *testing.T) {
			t.Parallel()
			p := open(t, t.TempDir())
			b := p.air.add(t, p.Twins, "b1")
			b.connect(1)
			until(t, "heard", func() bool { return p.twin(t, "b1").InSync })
			b.cut()
			b.set("app.hold", 20)
			b.set("app.max", 5)
			p.patch(t, "b1", "app.hold", 10, "app.max", 6)
			b.connect(2)
			until(t, "held", func() bool { return p.twin(t, "b1").Conflicts == 1 && p.twin(t, "b1").InSync })
			list, err := p.Conflicts(t.Context(), tenant)
			if err != nil || len(list) != 1 || string(list[0].Fleet.Value) != "10" || string(list[0].Edits[0].Value) != "20" || list[0].Since.IsZero() {
				t.Fatalf("%+v, %v", list, err)
			}
			if k := p.twin(t, "b1").Keys[0]; k.State != "conflict" || b.effective("app.hold") != "20" {
				t.Errorf("%+v", k)
			}
			if open, err := p.Unsettled(t.Context(), tenant); err != nil || !open["b1"].Conflict {
				t.Errorf("%v, %v", open, err)
			}
			d := rest.TwinDecision{Board: "b1", Key: "app.hold", Choose: c.choose, Reason: "so"}
			if c.value != "" {
				d.Value = []byte(c.value)
			}
			seen, err := p.Conflict(t.Context(), tenant, "b1", "app.hold")
			if err != nil {
				t.Fatal(err)
			}
			seen.Edits[0].Value = []byte("19") // what a person saw who was too slow
			if _, err := p.settle(t.Context(), ann(), d, seen); !errors.Is(err, ErrStale) {
				t.Errorf("a decision about what is no longer so: %v", err)
			}
			if _, err := p.Decide(t.Context(), ann(), d); err != nil {
				t.Fatal(err)
			}
			until(t, "decided", func() bool {
				tw := p.twin(t, "b1")
				return tw.Conflicts == 0 && tw.InSync && len(tw.Keys[0].Board) == 0
			})
			if list, err := p.Conflicts(t.Context(), tenant); err != nil || len(list) != 0 || b.effective("app.hold") != c.want {
				t.Errorf("%+v, %v, %s", list, err, b.effective("app.hold"))
			}
			if _, err := p.Decide(t.Context(), ann(), d); !errors.Is(err, ErrNoConflict) {
				t.Errorf("decided twice: %v", err)
			}
			if open, err := p.Unsettled(t.Context(), tenant); err != nil || len(open) != 0 {
				t.Errorf("%v, %v", open, err)
			}
			if got := p.kinds(t, "b1"); !slices.Contains(got, "held app.hold") || slices.Contains(got, "held app.max") || !slices.Contains(got, "replaced app.hold") {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestWrong: patches that cannot be in a twin, of callers that may not, and of a version
// that is over.
func TestWrong(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir())
	for name, set := range map[string]string{
		"app.X": "1", "": "1", "/x": "1", "app.a": "{", "app.b": "[null]", "app.c": "1e999", "app.d": `"` + strings.Repeat("x", 2000) + `"`, "app.e": "[[[[[1]]]]]", strings.Repeat("x", 97): "1", "app.f": "1 2",
	} {
		tp := patchOf()
		tp.Set[name] = []byte(set)
		if _, err := p.Patch(t.Context(), ann(), "b1", tp, -1); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s=%.20s: %v", name, set, err)
		}
		if _, err := p.Check(t.Context(), ann(), "b1", tp); !errors.Is(err, ErrInvalid) {
			t.Errorf("check of %s=%.20s: %v", name, set, err)
		}
	}
	if _, err := p.Patch(t.Context(), ann(), "b1", patchOf(), -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("no keys: %v", err)
	}
	viewer := ann()
	viewer.Rights = rest.Viewer.Rights()
	if _, err := p.Patch(t.Context(), viewer, "b1", patchOf("app.a", 1), -1); err == nil {
		t.Error("a viewer sets")
	}
	if _, err := p.PatchMany(t.Context(), viewer, []string{"b1"}, patchOf("app.a", 1), nil); err == nil {
		t.Error("a viewer sets")
	}
	p.patch(t, "b1", "app.a", 1)
	if _, err := p.Patch(t.Context(), ann(), "b1", patchOf("app.a", 2), 0); !errors.Is(err, ErrStale) {
		t.Errorf("%v", err)
	}
	if _, err := p.Patch(t.Context(), ann(), "b1", patchOf("app.a", 2), 1); err != nil {
		t.Errorf("%v", err)
	}
	h, _, err := p.cfg.Rows.Head(t.Context(), twinrows.Key{Tenant: tenant, Board: "b1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Patch(t.Context(), ann(), "b1", patchOf("app.a", 3), 2); err != nil {
		t.Error(err)
	}
	if again, _, err := p.cfg.Rows.Head(t.Context(), twinrows.Key{Tenant: tenant, Board: "b1"}); err != nil || again.Life != h.Life || h.Life == "" {
		t.Errorf("each edit of a board that is away is another life: %s, %s, %v", h.Life, again.Life, err)
	}
	full := patchOf()
	for i := range 40 {
		full.Set[fmt.Sprint("app.k", i)] = []byte(`"` + strings.Repeat("x", 900) + `"`)
	}
	if _, err := p.Patch(t.Context(), ann(), "b1", full, -1); !errors.Is(err, ErrInvalid) || p.twin(t, "b1").Version != 3 {
		t.Errorf("more than a section holds: %v", err)
	}
}

// TestOnlyHeld: what another policy than hold decides is in nobody's list, also in the
// moment before the board has decided it.
func TestOnlyHeld(t *testing.T) {
	t.Parallel()
	p := open(t, t.TempDir())
	b := p.air.add(t, p.Twins, "b1")
	b.connect(1)
	until(t, "heard", func() bool { return p.twin(t, "b1").InSync })
	p.air.mu.Lock()
	p.air.deaf = true
	p.air.mu.Unlock()
	p.patch(t, "b1", "app.max", 6)
	b.set("app.max", 5)
	b.pending()
	until(t, "set on the board", func() bool { k := p.twin(t, "b1").Keys[0]; return len(k.Board) == 1 && string(k.Value) == "6" })
	if tw := p.twin(t, "b1"); tw.Conflicts != 0 || tw.Keys[0].State != "pending" {
		t.Errorf("%+v", tw)
	}
}
