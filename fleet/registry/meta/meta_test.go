// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package meta

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"fulmar/fleet/access"
	"fulmar/fleet/audit"
	"fulmar/fleet/query"
	"fulmar/fleet/store"
	"fulmar/schema/rest"
)

func open(t *testing.T) (*Metas, *audit.Log) {
	t.Helper()
	tenants := `CREATE TABLE tenant (name TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO tenant VALUES ('default'), ('other');`
	db, err := store.OpenFile(filepath.Join(t.TempDir(), "registry.db"), []string{tenants + audit.Schema, Schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return New(db), audit.New(db)
}

func operator() access.Caller {
	return access.Caller{Tenant: "default", Who: "m.kern", Rights: rest.Operator.Rights()}
}

func told(t *testing.T, log *audit.Log) (out []string) {
	t.Helper()
	err := log.Each(context.Background(), 0, func(e audit.Entry) error {
		out = append(out, e.Tenant+" "+e.Who+" "+e.What+" "+e.Board+": "+e.Why)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSet(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ms, log := open(t)
	m := rest.Meta{
		Site: "hall 4", Labels: map[string]string{"line": "4", "row": "b"}, Description: "by the door\nof the dock", Location: &rest.Location{Lat: 52.5, Lon: 13.4},
		LocationAccuracy: 12, PowerBudget: 15, Version: 99,
	}
	got, err := ms.Set(ctx, operator(), "dock-1", m, 0)
	if m.Version = 1; err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("%+v, %v", got, err)
	}
	if back, err := ms.Get(ctx, "default", "dock-1"); err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("kept as %+v, %v", back, err)
	}
	if back, err := ms.Get(ctx, "other", "dock-1"); err != nil || !reflect.DeepEqual(back, rest.Meta{}) {
		t.Errorf("another tenant has %+v, %v", back, err)
	}
	if _, err := ms.Set(ctx, operator(), "dock-1", rest.Meta{}, 0); !errors.Is(err, ErrStale) {
		t.Errorf("a stale change: %v", err)
	}
	if got, err := ms.Set(ctx, operator(), "dock-1", m, 1); err != nil || got.Version != 1 {
		t.Errorf("no change: version %d, %v", got.Version, err)
	}
	next := rest.Meta{Site: "hall 5", Labels: map[string]string{"line": "4", "zone": "x"}}
	if got, err := ms.Set(ctx, operator(), "dock-1", next, -1); err != nil || got.Version != 2 {
		t.Errorf("version %d, %v", got.Version, err)
	}
	other := operator()
	other.Tenant, other.Who = "other", "token line-4"
	if _, err := ms.Set(ctx, other, "dock-1", rest.Meta{Site: "y"}, 0); err != nil {
		t.Error(err)
	}
	if all, err := ms.All(ctx, "default"); err != nil || len(all) != 1 || all["dock-1"].Site != "hall 5" || all["dock-1"].Version != 2 {
		t.Errorf("%v, %v", all, err)
	}
	want := []string{
		"default m.kern set-meta dock-1: site hall 4 (was none); label.line 4 (was none); label.row b (was none); location 52.5,13.4 (was none); edge-location-accuracy 12 (was 0); power-budget-watt 15 (was 0); description",
		"default m.kern set-meta dock-1: site hall 5 (was hall 4); label.row none (was b); label.zone x (was none); location none (was 52.5,13.4); edge-location-accuracy 0 (was 12); power-budget-watt 0 (was 15); description",
		"other token line-4 set-meta dock-1: site y (was none)",
	}
	if got := told(t, log); !slices.Equal(got, want) {
		t.Errorf("the log says\n%s", strings.Join(got, "\n"))
	}
}

func TestRights(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ms, log := open(t)
	viewer := operator()
	viewer.Rights = rest.Viewer.Rights()
	_, err := ms.Set(ctx, viewer, "dock-1", rest.Meta{Site: "a"}, -1)
	_, err2 := ms.SaveQuery(ctx, viewer, rest.SavedQuery{Name: "a", Query: "dock"})
	err3 := ms.SetAll(ctx, viewer, []string{"dock-1"}, func(_ string, m *rest.Meta) { m.Site = "a" })
	for _, err := range []error{err, err2, err3, ms.RemoveQuery(ctx, viewer, "a")} {
		if !errors.Is(err, access.ErrNotAllowed) {
			t.Error(err)
		}
	}
	if got := told(t, log); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ms, _ := open(t)
	many := map[string]string{}
	for i := range maxLabels + 1 {
		many[fmt.Sprintf("l%d", i)] = "x"
	}
	for want, m := range map[string]rest.Meta{
		"site: 65 bytes":                       {Site: strings.Repeat("a", 65)},
		"site: begins":                         {Site: " a"},
		"site: holds":                          {Site: "a\x1b[2J"},
		"description: holds":                   {Description: "a\xffb"},
		"description: 1025":                    {Description: strings.Repeat("a", 1025)},
		"labels: 33 of them":                   {Labels: many},
		"labels: a name is of":                 {Labels: map[string]string{"A b": "x"}},
		"labels: a name is of a-z":             {Labels: map[string]string{"": "x"}},
		"labels: line has no value":            {Labels: map[string]string{"line": ""}},
		"label line: 129":                      {Labels: map[string]string{"line": strings.Repeat("a", 129)}},
		"location: wants":                      {Location: &rest.Location{Lat: 91}},
		"location: wants lat":                  {Location: &rest.Location{Lon: math.NaN()}},
		"edge-location-accuracy: wants metres": {LocationAccuracy: -1},
		"edge-location-accuracy: wants":        {LocationAccuracy: math.Inf(1)},
		"power-budget-watt: wants":             {PowerBudget: math.NaN()},
		"power-budget-watt: wants watts":       {PowerBudget: 1001},
	} {
		_, err := ms.Set(ctx, operator(), "dock-1", m, -1)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("wants %q: %v", want, err)
		}
	}
	if m, err := ms.Get(ctx, "default", "dock-1"); err != nil || m.Version != 0 {
		t.Errorf("kept %+v, %v", m, err)
	}
	if err := ms.SetAll(ctx, operator(), make([]string, maxAtOnce+1), func(string, *rest.Meta) {}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
}

// TestSetAll: many boards in one transaction, each with its entry in the log, or none.
func TestSetAll(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ms, log := open(t)
	if _, err := ms.Set(ctx, operator(), "dock-2", rest.Meta{Site: "yard", Labels: map[string]string{"row": "b"}}, -1); err != nil {
		t.Fatal(err)
	}
	label := func(_ string, m *rest.Meta) {
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels["line"] = "4"
		m.Version = 99 // nobody counts but the table
	}
	boards := []string{"dock-1", "dock-2", "dock-3"}
	if err := ms.SetAll(ctx, operator(), boards, label); err != nil {
		t.Fatal(err)
	}
	if err := ms.SetAll(ctx, operator(), boards, func(b string, m *rest.Meta) {
		if m.Site = "hall"; b == "dock-3" {
			m.Site = "\x00"
		}
	}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "dock-3") {
		t.Error(err)
	}
	all, err := ms.All(ctx, "default")
	if err != nil || len(all) != 3 || all["dock-1"].Site != "" || all["dock-2"].Site != "yard" || all["dock-2"].Version != 2 || len(all["dock-2"].Labels) != 2 || all["dock-3"].Labels["line"] != "4" {
		t.Errorf("%+v, %v", all, err)
	}
	if got := told(t, log); len(got) != 4 || got[3] != "default m.kern set-meta dock-3: label.line 4 (was none)" {
		t.Errorf("%q", got)
	}
}

func TestSavedQueries(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ms, log := open(t)
	saved, err := ms.SaveQuery(ctx, operator(), rest.SavedQuery{Name: "old ones", Query: "release<1.8 and NOT (dock)"})
	if err != nil || saved.Query != "release < 1.8 and not dock" {
		t.Errorf("%+v, %v", saved, err)
	}
	// A name is a value, whatever it looks like.
	for _, name := range []string{`'); DROP TABLE saved_query; --`, `" OR 1=1`, "%"} {
		if _, err := ms.SaveQuery(ctx, operator(), rest.SavedQuery{Name: name, Query: `label.a = "' OR '1'='1"`}); err != nil {
			t.Error(err)
		}
		if err := ms.RemoveQuery(ctx, operator(), name); err != nil {
			t.Error(err)
		}
	}
	if qs, err := ms.Queries(ctx, "default"); err != nil || len(qs) != 1 {
		t.Errorf("%v, %v", qs, err)
	}
	var wrong *query.Error
	if _, err := ms.SaveQuery(ctx, operator(), rest.SavedQuery{Name: "x", Query: "sit = a"}); !errors.Is(err, ErrInvalid) || !errors.As(err, &wrong) {
		t.Error(err)
	}
	if _, err := ms.SaveQuery(ctx, operator(), rest.SavedQuery{Query: "dock"}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for i := range maxQueries - 1 {
		if _, err := ms.SaveQuery(ctx, operator(), rest.SavedQuery{Name: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ms.SaveQuery(ctx, operator(), rest.SavedQuery{Name: "more"}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if _, err := ms.SaveQuery(ctx, operator(), rest.SavedQuery{Name: "old ones", Query: "release < 1.9"}); err != nil {
		t.Error(err)
	}
	if err := ms.RemoveQuery(ctx, operator(), "0"); err != nil {
		t.Error(err)
	}
	if err := ms.RemoveQuery(ctx, operator(), "0"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	qs, err := ms.Queries(ctx, "default")
	if err != nil || len(qs) != maxQueries-1 || qs[len(qs)-1] != (rest.SavedQuery{Name: "old ones", Query: "release < 1.9"}) {
		t.Errorf("%d, %v", len(qs), err)
	}
	if qs, _ := ms.Queries(ctx, "other"); len(qs) != 0 {
		t.Error("another tenant sees them")
	}
	if got := told(t, log); got[0] != "default m.kern save-query : old ones: release < 1.8 and not dock" || got[len(got)-1] != "default m.kern remove-query : 0" {
		t.Errorf("%q", got)
	}
}
