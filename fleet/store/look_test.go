// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/fleet/ingest"
	"fulmar/fleet/store"
	"fulmar/fleet/web"
	"fulmar/schema"
)

// many is a writer for several boards of two tenants, which have the same names.
type many struct {
	*rig
	rnd *rand.Rand
	seq map[string]uint64
}

func (m *many) send(t *testing.T, k ingest.BoardKey, c schema.Class, rec schema.Record) {
	t.Helper()
	now := time.Now()
	rec.Time = boardTime(now)
	raw, err := schema.EncodeRecord(&rec)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprint(k, c)
	m.seq[name] += 1 + uint64(m.rnd.IntN(2))
	p, err := schema.Encode(&schema.Message{V: 1, Board: k.Board, Class: c, Epoch: 1, Sent: boardTime(now), Records: []schema.SeqRecord{{Seq: m.seq[name], Payload: raw}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, refused, err := m.in.Publish(ctx, k, schema.MessageTopic(k.Tenant, k.Board, c).String(), p); err != nil || refused {
		t.Fatalf("refused %v, %v", refused, err)
	}
}

// step does one thing that a board or a person may do.
func (m *many) step(t *testing.T, k ingest.BoardKey) {
	t.Helper()
	var err error
	switch m.rnd.IntN(12) {
	case 0:
		err = m.in.Hello(ctx, k, &schema.Hello{V: 1, Board: k.Board, Release: fmt.Sprint("1.", m.rnd.IntN(9)), Conn: 1, Now: boardTime(time.Now()), Facts: map[string]string{"n": fmt.Sprint(m.rnd.IntN(99))}})
	case 1:
		err = m.in.Presence(ctx, k, schema.Presence{V: 1, Online: m.rnd.IntN(4) > 0, Boot: 1, Conn: 1})
	case 2:
		m.send(t, k, schema.ClassAlarm, schema.Record{Kind: schema.KindReport, Report: &schema.Report{
			Subject: fmt.Sprint("s", m.rnd.IntN(3)), State: "x", Severity: schema.Severity(m.rnd.IntN(3)), Text: fmt.Sprint("t", m.rnd.IntN(9)),
		}})
	case 3, 4:
		m.send(t, k, schema.ClassEvent, schema.Record{Kind: schema.KindEvent, Event: &schema.Event{
			Source: fmt.Sprint("cam", m.rnd.IntN(2)), Model: "m@1", Boxes: []schema.Box{{Match: schema.Match(m.rnd.IntN(3))}},
		}})
	case 5:
		if last := m.seq[fmt.Sprint(k, schema.ClassMetric)]; last > 0 {
			m.send(t, k, schema.ClassAlarm, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{
				Class: schema.ClassMetric, Epoch: 1, First: 1 + uint64(m.rnd.Int64N(int64(last))), Last: last, Reason: schema.ReasonQuota,
			}})
		}
	case 6:
		if m.rnd.IntN(5) == 0 {
			err = m.in.Wipe(ctx, k)
			for c := range schema.Class(schema.NumClasses) {
				delete(m.seq, fmt.Sprint(k, c))
			}
		}
	default:
		m.send(t, k, schema.ClassMetric, schema.Record{Kind: schema.KindSamples, Samples: &schema.Samples{
			Series: []string{fmt.Sprint("v.", m.rnd.IntN(4))}, Value: []float64{m.rnd.Float64()}, Quality: []schema.Quality{schema.Quality(m.rnd.IntN(4))},
		}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// text is a snapshot without what time alone changes.
func text(t *testing.T, o *web.Overview) string {
	t.Helper()
	b, err := json.MarshalIndent(o.Boards, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLookAgrees: whatever happens, a look that reads only what has changed sees what one
// sees that reads everything; and what it gave before stays as it was.
func TestLookAgrees(t *testing.T) {
	t.Parallel()
	enrolled := []store.Enrolled{{Name: "b0", KeyMode: "tpm"}, {Name: "b1"}, {Name: "b3", Facts: map[string]string{"at": "enrolment"}}}
	m := &many{rig: open(t, enrolled...), rnd: rand.New(rand.NewPCG(3, 9)), seq: map[string]uint64{}}
	tenants := []string{"default", "other"}
	was := map[*web.Overview]string{}
	for range 120 {
		for range 1 + m.rnd.IntN(3) {
			m.step(t, ingest.BoardKey{Tenant: tenants[m.rnd.IntN(2)], Board: fmt.Sprint("b", m.rnd.IntN(3))}) // b2 is not enrolled, b3 never heard
		}
		for _, tenant := range tenants {
			got, err := m.Overview(ctx, tenant)
			if err != nil {
				t.Fatal(err)
			}
			whole := store.New(m.db, func(context.Context, string) ([]store.Enrolled, error) { return enrolled, nil }, nil)
			want, err := whole.Overview(ctx, tenant)
			if err != nil {
				t.Fatal(err)
			}
			if g, w := text(t, got), text(t, want); g != w {
				a, b := strings.Split(g, "\n"), strings.Split(w, "\n")
				i := 0
				for i < min(len(a), len(b)) && a[i] == b[i] {
					i++
				}
				t.Fatalf("of %s a look that reads what has changed sees from line %d on\n%s\nand one at everything\n%s",
					tenant, i, strings.Join(a[max(i-9, 0):min(i+9, len(a))], "\n"), strings.Join(b[max(i-9, 0):min(i+9, len(b))], "\n"))
			}
			was[got] = text(t, got)
		}
	}
	for o, before := range was {
		if text(t, o) != before {
			t.Fatal("a snapshot has changed after it was given")
		}
	}
}

// TestLookByTime: a board that falls silent is shown so though nothing more is written.
func TestLookByTime(t *testing.T) {
	t.Parallel()
	r := open(t)
	if err := r.in.Presence(ctx, key, schema.Presence{V: 1, Online: true, Boot: 1, Conn: 1}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s := r.AtTime(func() time.Time { return now })
	for i, want := range []web.State{web.StateHealthy, web.StateUnreachable} {
		o, err := s.Overview(ctx, "default")
		if err != nil {
			t.Fatal(err)
		}
		if b := o.Boards[0]; b.State != want {
			t.Errorf("look %d: it is %s (%s)", i, b.State, b.Cause)
		}
		now = now.Add(2 * time.Minute)
	}
}

// TestLookIsShared: many who ask at once get one snapshot, while boards write; the race
// detector sees whoever changes what is shared.
func TestLookIsShared(t *testing.T) {
	t.Parallel()
	m := &many{rig: open(t, store.Enrolled{Name: "b0"}), rnd: rand.New(rand.NewPCG(4, 9)), seq: map[string]uint64{}}
	m.SetEvery(5 * time.Millisecond)
	var mu sync.Mutex
	seen := map[*web.Overview]int{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				o, err := m.Overview(ctx, "default")
				if err != nil || !slices.IsSortedFunc(o.Boards, func(a, b web.Board) int { return int(a.Name[1]) - int(b.Name[1]) }) {
					t.Error(o, err)
					return
				}
				for i := range o.Boards {
					for _, x := range o.Boards[i].Latest {
						_ = x.Value
					}
					_, _ = json.Marshal(o.Boards[i])
				}
				mu.Lock()
				seen[o]++
				mu.Unlock()
			}
		})
	}
	for range 300 {
		m.step(t, ingest.BoardKey{Tenant: "default", Board: fmt.Sprint("b", m.rnd.IntN(3))})
	}
	close(stop)
	wg.Wait()
	shared := 0
	for _, n := range seen {
		if n > 1 {
			shared++
		}
	}
	if shared == 0 {
		t.Errorf("none of %d snapshots was given twice", len(seen))
	}
}

// TestLookOfAnotherProcess: where the writer is elsewhere, a look sees what it writes.
func TestLookOfAnotherProcess(t *testing.T) {
	t.Parallel()
	r := open(t)
	other, err := store.OpenFile(r.path, store.Migrations())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	none := func(context.Context, string) ([]store.Enrolled, error) { return nil, nil }
	reader := store.New(other, none, nil).Eager()
	for n := range 3 {
		if err := r.in.Presence(ctx, ingest.BoardKey{Tenant: "default", Board: fmt.Sprint("b", n)}, schema.Presence{V: 1, Online: true, Boot: 1, Conn: 1}); err != nil {
			t.Fatal(err)
		}
		if o, err := reader.Overview(ctx, "default"); err != nil || len(o.Boards) != n+1 {
			t.Fatalf("sees %d boards of %d, %v", len(o.Boards), n+1, err)
		}
	}
}

// TestStale: who has changed something sees it in the next look.
func TestStale(t *testing.T) {
	t.Parallel()
	list := []store.Enrolled{{Name: "b1"}}
	r := open(t)
	s := store.New(r.db, func(context.Context, string) ([]store.Enrolled, error) { return list, nil }, nil)
	count := func() int {
		o, err := s.Overview(ctx, "default")
		if err != nil {
			t.Fatal(err)
		}
		return len(o.Boards)
	}
	if count() != 1 || r.in.Presence(ctx, ingest.BoardKey{Tenant: "other", Board: "b"}, schema.Presence{V: 1}) != nil {
		t.Fatal("not there")
	}
	list = append(list, store.Enrolled{Name: "b2"})
	if count() != 1 {
		t.Error("a look that is not a second old was made anew")
	}
	s.Stale("default")
	if count() != 2 {
		t.Error("what was just changed is not seen")
	}
}
