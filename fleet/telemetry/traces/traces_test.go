// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package traces

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"fulmar/fleet/store"
	"fulmar/schema"
)

// fixture is a ledger with events of one board.
func fixture(t *testing.T, events int) *store.DB {
	t.Helper()
	db, err := store.OpenLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	raw, err := schema.Encode(&schema.Event{Source: "cam0", Model: "parcels@1", LatencyUs: 20_000, Engine: "onnx"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Write.Exec(`INSERT INTO board (id, tenant, name) VALUES (1, 'a', 'dock-1')`); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Write.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if _, err := tx.Exec(`INSERT INTO event (board, class, epoch, seq, at, arrived, replayed, source, model, engine, snapshot, boxes, known, n_true, n_false, n_missed, payload)
VALUES (1, 1, -2, ?, 1000, 1090, 0, 'cam0', 'parcels@1', 'onnx', '', 3, 0, 0, 0, 0, ?)`, i+1, raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return db
}

// The official decoder reads the way of an event: a root and what lies in it.
func TestWay(t *testing.T) {
	t.Parallel()
	db := fixture(t, 1)
	var got trace.TracesData // on the wire the same as ExportTraceServiceRequest
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(b, &got)
		}
		if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%v %v", err, r.Header)
		}
	}))
	defer s.Close()
	x := New(Config{URL: s.URL, Share: 1}, db.Read, slog.New(slog.DiscardHandler))
	if last, err := x.read(t.Context(), 0); err != nil || last != 1 {
		t.Fatalf("%d %v", last, err)
	}
	if err := x.send(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(got.ResourceSpans) != 1 || len(got.ProtoReflect().GetUnknown()) != 0 {
		t.Fatalf("%v", &got)
	}
	attrs := map[string]string{}
	for _, a := range got.ResourceSpans[0].Resource.Attributes {
		attrs[a.Key] = a.Value.GetStringValue()
	}
	if attrs["service.instance.id"] != "dock-1" || attrs["service.namespace"] != "a" {
		t.Errorf("resource %v", attrs)
	}
	spans := got.ResourceSpans[0].ScopeSpans[0].Spans
	if len(spans) != 3 {
		t.Fatalf("%d spans", len(spans))
	}
	id := ID("a", schema.ID{Board: "dock-1", Class: schema.ClassEvent, Epoch: ^uint64(1), Seq: 1})
	for i, want := range []struct {
		name     string
		from, to uint64 // ms
	}{{"detection", 1000, 1090}, {"capture to detections", 1000, 1020}, {"detections to ledger", 1020, 1090}} {
		p := spans[i]
		if p.Name != want.name || p.StartTimeUnixNano != want.from*1e6 || p.EndTimeUnixNano != want.to*1e6 || [16]byte(p.TraceId) != id || p.Kind != trace.Span_SPAN_KIND_INTERNAL {
			t.Errorf("span %d: %v", i, p)
		}
		if parent := string(p.ParentSpanId); i > 0 && parent != string(spans[0].SpanId) || i == 0 && parent != "" {
			t.Errorf("span %d has the parent %x", i, parent)
		}
	}
	for _, a := range spans[0].Attributes {
		if a.Key == "fulmar.boxes" && a.Value.GetIntValue() != 3 {
			t.Errorf("boxes %v", a.Value)
		}
	}
}

// A collector that is away costs no memory over the bound; what is dropped is counted.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	db := fixture(t, queue+100)
	down := true
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	x := New(Config{URL: s.URL, Share: 1}, db.Read, slog.New(slog.DiscardHandler))
	var last int64
	var err error
	for last < queue+100 {
		if last, err = x.read(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if x.send(t.Context()) == nil {
			t.Fatal("sent to a collector that is away")
		}
	}
	down = false
	if err := x.send(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x.n.dropped.Load() != 100 || x.n.sent.Load() != queue {
		t.Errorf("dropped %d, sent %d", x.n.dropped.Load(), x.n.sent.Load())
	}
}

// The share is drawn by the id.
func TestShare(t *testing.T) {
	t.Parallel()
	n := 0
	for i := range uint64(20_000) {
		if chosen(ID("a", schema.ID{Board: "b", Class: schema.ClassEvent, Epoch: 1, Seq: i}), 0.1) {
			n++
		}
	}
	if n < 1800 || n > 2200 {
		t.Errorf("%d of 20,000 at 0.1", n)
	}
}
