// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"testing"

	"fulmar/schema"
	"fulmar/trust"
	"fulmar/twin/wire"
)

// weighed counts what goes over the line.
type weighed struct{ bytes, ups, downs int }

func (w *weighed) meet(tb testing.TB, b *Board, f *Fleet, u *wire.Up) {
	tb.Helper()
	for u != nil {
		w.ups++
		w.bytes += size(tb, u)
		d, err := f.Receive(u)
		if err != nil {
			tb.Fatal(err)
		}
		f.Confirm(len(f.Events()))
		u = w.down(tb, b, d)
	}
}

func (w *weighed) down(tb testing.TB, b *Board, d *wire.Down) *wire.Up {
	tb.Helper()
	if d == nil {
		return nil
	}
	w.downs++
	w.bytes += size(tb, d)
	u, err := b.Receive(d)
	if err != nil {
		tb.Fatal(err)
	}
	b.Confirm(len(b.Events()))
	return u
}

func size(tb testing.TB, v any) int {
	tb.Helper()
	raw, err := schema.Encode(v)
	if err != nil {
		tb.Fatal(err)
	}
	return len(raw)
}

// BenchmarkSync weighs what a twin of 24 keys set and 60 reported costs on the line, both
// ways, with a real signature; MQTT and TLS add 4 + 40 bytes and more a message. The whole
// document is what a peer that knows no digests sends each time: what is wanted and what is
// reported, as JSON.
func BenchmarkSync(b *testing.B) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		sign := func(statement []byte) ([]byte, error) {
			e, err := trust.NewEnvelope(trust.TypeTwin, statement)
			if err == nil {
				err = e.Sign(key)
			}
			if err != nil {
				return nil, err
			}
			return e.Encode()
		}
		open := func(envelope []byte) ([]byte, error) {
			e, err := trust.ParseEnvelope(envelope)
			if err != nil {
				return nil, err
			}
			return e.Unverified(), nil
		}
		fleet, err := NewFleet(FleetConfig{Tenant: "default", Board: "dock-0001", Instance: InstanceOf('f', 1, 1), Sign: sign, Open: open}, nil)
		if err != nil {
			b.Fatal(err)
		}
		board, err := NewBoard(BoardConfig{Tenant: "default", Board: "dock-0001", Instance: InstanceOf('b', 1, 1), Open: open}, nil)
		if err != nil {
			b.Fatal(err)
		}
		whole := map[string]map[string]any{"desired": {}, "reported": {}}
		set, is := map[string]Value{}, map[string]Value{}
		for i := range 24 {
			k := fmt.Sprintf("sample.group%02d.period", i)
			set[k], whole["desired"][k] = val(b, "10s"), "10s"
		}
		for i := range 60 {
			k := fmt.Sprintf("config.sample.group%02d.period", i)
			is[k], whole["reported"][k] = val(b, "10s"), "10s"
		}
		if _, err := fleet.Edit("anna", "", set); err != nil {
			b.Fatal(err)
		}
		if err := board.Report(is); err != nil {
			b.Fatal(err)
		}
		document, err := json.Marshal(whole)
		if err != nil {
			b.Fatal(err)
		}
		conn := uint64(0)
		connect := func(w *weighed) {
			conn++
			fleet.Connect(conn)
			w.meet(b, board, fleet, board.Hello(conn))
		}
		var all, same, edited, reported weighed
		connect(&all)
		connect(&same)
		if _, err := fleet.Edit("anna", "", map[string]Value{"sample.group03.period": val(b, "5s")}); err != nil {
			b.Fatal(err)
		}
		edited.meet(b, board, fleet, edited.down(b, board, fleet.Push()))
		if err := board.Report(map[string]Value{"config.sample.group03.period": val(b, "5s")}); err != nil {
			b.Fatal(err)
		}
		reported.meet(b, board, fleet, board.Pending())
		for name, w := range map[string]weighed{"new": all, "same": same, "edit": edited, "report": reported} {
			b.ReportMetric(float64(w.bytes), name+"-B")
			b.ReportMetric(float64(w.ups), name+"-ups")
			b.ReportMetric(float64(w.downs), name+"-downs")
		}
		b.ReportMetric(float64(len(document)), "document-B")
		if newest, has := fleet.Version(); newest != has || len(fleet.Reported()) != 60 {
			b.Fatalf("version %d, the board has %d, %d keys reported", newest, has, len(fleet.Reported()))
		}
	}
}
