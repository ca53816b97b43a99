// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"slices"
	"testing"
	"time"

	"fulmar/fleet/web"
	"fulmar/tests/fleet/sim"
)

// TestTroublesAreSeen: a fleet of simulated boards looks like one: all are there, each
// trouble makes its board sick with a cause that names it, and the others are well.
func TestTroublesAreSeen(t *testing.T) {
	t.Parallel()
	s := server(t)
	f, _ := start(t, s, sim.Config{
		Boards: 70, Sites: 7, Seed: 5, Sick: true, Every: 300 * time.Millisecond, EventEvery: 2 * time.Second, PictureEvery: 4 * time.Second, Ramp: time.Second, Onset: 2 * time.Second,
	})
	api, err := s.API()
	if err != nil {
		t.Fatal(err)
	}
	want := map[sim.Trouble][]web.State{
		sim.TroubleCamera: {web.StateFailing}, sim.TroubleHot: {web.StateDegraded}, sim.TroubleSensor: {web.StateDegraded}, sim.TroubleDisk: {web.StateDegraded},
		sim.TroubleNone: {web.StateHealthy}, sim.TroubleOld: {web.StateHealthy}, sim.TroubleClock: {web.StateHealthy},
	}
	var wrong []string
	for end := time.Now().Add(75 * time.Second); ; time.Sleep(time.Second) {
		o, err := api.Overview(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		states := map[string]*web.Board{}
		for i := range o.Boards {
			states[o.Boards[i].Name] = &o.Boards[i]
		}
		wrong = nil
		for _, b := range f.Boards() {
			got := states[b.Name]
			if got == nil {
				wrong = append(wrong, b.Name+" is not there")
				continue
			}
			if w := want[b.Trouble]; w != nil && !slices.Contains(w, got.State) {
				wrong = append(wrong, b.Name+" ("+string(b.Trouble)+") is "+string(got.State)+": "+got.Cause)
			}
			if b.Trouble == sim.TroubleNone && (len(got.Latest) < 10 || len(got.Cameras) == 0) {
				wrong = append(wrong, b.Name+" has no values or no camera yet")
			}
		}
		if len(wrong) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal(wrong)
		}
	}
	var d struct {
		Detections []web.Detection `json:"detections"`
	}
	if err := api.Get(t.Context(), "/api/v1/detections?limit=200", &d); err != nil {
		t.Fatal(err)
	}
	pictures := 0
	for i := range d.Detections {
		if d.Detections[i].HasPicture {
			pictures++
		}
	}
	if pictures == 0 {
		t.Errorf("none of %d detections has its picture", len(d.Detections))
	}
	t.Logf("%+v, %d of %d detections with a picture", f.Stats(), pictures, len(d.Detections))
}
