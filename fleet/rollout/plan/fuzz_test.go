// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"fulmar/schema/rest"
)

// FuzzSpec: whatever a person or a program plans is refused with the field that is
// wrong, or becomes a plan in which each board is in one wave, and a forecast.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"component":"agent","release":"1.9"}`))
	f.Add([]byte(`{"component":"model/x","release":"7","shadow":{"percent":3,"agreement":{"expr":"x","min":0.9}},"waves":[{"count":2,"pause":true},{"percent":100}]}`))
	f.Add([]byte(`{"component":"agent","release":"1","windows":[{"from":"22:00","to":"05:00","days":["fri"],"zone":"Europe/Berlin"}],"per_site":1,"bytes":9,"fleet_bytes_per_s":1,"site_bytes_per_s":1}`))
	f.Add([]byte(`{"component":"agent","release":"1","gate":{"policy":"point","gate":0.5,"min_failures":1,"min_answered":1},"boards":["b000001","nobody"],"before":{"url":"https://x"}}`))
	now := time.Unix(1.8e9, 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		var s rest.RolloutSpec
		if json.Unmarshal(b, &s) != nil {
			return
		}
		s, err := Complete(s)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Pointer == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := Complete(s)
		if err != nil {
			t.Fatalf("what was completed is refused: %v", err)
		}
		p, err := Make(again, candidates(40, 3))
		if err != nil {
			return
		}
		sum := 0
		for _, w := range p.Waves {
			if w.N > 0 {
				sum += w.Boards
			}
		}
		for i := range p.Boards {
			if w := p.Boards[i].Wave; w < 1 || w > len(s.Waves) {
				t.Fatalf("board %d is in wave %d", i, w)
			}
		}
		if sum != len(p.Boards) {
			t.Fatalf("waves of %d boards, planned are %d", sum, len(p.Boards))
		}
		if f := Forecast(again, p, Typical, now); f.Sentence == "" || f.Done != nil && f.Done.Before(now) {
			t.Fatalf("%+v", f)
		}
	})
}
