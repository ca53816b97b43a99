// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package autonomy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fulmar/command"
	"fulmar/schema/onboard"
	"fulmar/schema/rest"
)

// flood is how many commands come at once.
const flood = 10_000

// TestFlood: 10,000 commands through the API, then 10,000 through the board's socket. What
// is taken is done once and has a row, what is not taken is said so and never done, and a
// safety shutdown waits for none of it.
func TestFlood(t *testing.T) {
	t.Parallel()
	h, p := newHouse(t), newField(t)
	h.start(board, "", fmt.Sprintf(`sensors: {synthetic: 1}
outputs:
  - {name: count, kind: modbus, min: 0, max: 30000, restore: leave, modbus: {address: %q, device: 1, register: 0}}
  - {name: stop, kind: modbus, min: 0, max: 1, safe: 1, restore: leave, modbus: {address: %q, device: 1, register: 1}}
`, p.address, p.address))
	h.ready()
	h.flooded(t, p, 10_000, h.overAPI)
	h.flooded(t, p, 20_000, h.overSocket)
}

// flooded floods with commands that count up from first, by a way that tells whether one
// is taken.
func (h *house) flooded(t *testing.T, p *field, first int, way func(n int) (bool, error)) {
	var mu sync.Mutex
	var taken []int
	var wg sync.WaitGroup
	begun := time.Now()
	for w := range 4 {
		wg.Go(func() {
			for n := first + w; n < first+flood; n += 4 {
				ok, err := way(n)
				if err != nil {
					t.Errorf("%d: %v", n, err)
					return
				}
				if ok {
					mu.Lock()
					taken = append(taken, n)
					mu.Unlock()
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond) // in the middle of it
	var s onboard.Step
	at := time.Now()
	code, text := h.local(board, &s, "give", "trigger-safety-shutdown", "--reason", "in a flood")
	took := time.Since(at)
	if code != 0 || s.State != "done" || p.stands(1) != 1 || took > 5*time.Second {
		t.Errorf("the shutdown took %v: exit code %d, %+v: %s", took, code, s, text)
	}
	h.until("the release", time.Minute, func() bool { // which waits for its turn as others do
		code, _ := h.local(board, nil, "give", "release-safety-shutdown", "--reason", "the flood is only a test")
		return code == 0
	})
	wg.Wait()
	t.Logf("%d of %d were taken in %v; the shutdown among them took %v", len(taken), flood, time.Since(begun).Round(time.Millisecond), took.Round(time.Millisecond))
	if len(taken) == 0 || len(taken) == flood {
		t.Errorf("%d were taken: either nothing works or nothing is bounded", len(taken))
	}
	time.Sleep(3 * time.Second) // the address has used up its share of the API

	released := 0
	rows, gaps, dropped := map[int]string{}, map[string]command.GapValue{}, command.GapValue{}
	h.until("a last word on each", time.Minute, func() bool {
		clear(rows)
		open := 0
		released = 0
		dropped = command.GapValue{States: map[string]uint64{}}
		for _, r := range h.rows(board) {
			var a struct{ Value int }
			switch {
			case r.Name == command.NameGap:
				if _, known := gaps[r.ID]; !known {
					gaps[r.ID] = h.gap(r.ID)
				}
				dropped.Count += gaps[r.ID].Count
				for state, n := range gaps[r.ID].States {
					dropped.States[state] += n
				}
			case r.Name == "release-safety-shutdown" && stateOf(&r) == rest.CommandDone:
				released++ // one in each flood, and it may be dropped as others are
			case r.Name != "set-output" || json.Unmarshal(r.Args, &a) != nil || a.Value < first:
			case rows[a.Value] != "":
				t.Errorf("%d has two rows", a.Value)
			case stateOf(&r) != rest.CommandRefused:
				if rows[a.Value] = stateOf(&r); !rest.CommandFinal(rows[a.Value]) {
					open++
				}
			}
		}
		// A row whose result the board dropped stays open: it is among the counted.
		return len(rows)-open+int(dropped.Count-dropped.States[rest.CommandRefused])+released >= len(taken)+first/flood
	})
	times, done, ended, cancelled := map[int]int{}, 0, 0, 0
	for _, v := range p.written(0) {
		times[v]++
	}
	for n := first; n < first+flood; n++ {
		if rows[n] == rest.CommandDone {
			done++
		}
		if rows[n] == rest.CommandCancelled { // by the shutdown
			cancelled++
		}
		if rest.CommandFinal(rows[n]) {
			ended++
		}
		ok := slices.Contains(taken, n)
		if times[n] > 1 || rows[n] == rest.CommandDone && times[n] != 1 || rows[n] == rest.CommandFailed && times[n] != 0 || !ok && (rows[n] != "" || times[n] != 0) {
			t.Errorf("%d: written %d times, %q at the fleet, taken %v", n, times[n], rows[n], ok)
		}
	}
	// Beyond 1,024 that wait the board drops results and counts them: the sums are right all
	// the same.
	said := done + int(dropped.States[rest.CommandDone]) + released - first/flood
	if maybe := cancelled + int(dropped.States[rest.CommandCancelled]); len(times) < said || len(times) > said+maybe { // what a cancelled one had done stays done
		t.Errorf("%d were written, and at the fleet are %d rows that are done and counted %v", len(times), done, dropped.States)
	}
	if n := ended + int(dropped.Count-dropped.States[rest.CommandRefused]) + released - first/flood; n != len(taken) {
		t.Errorf("%d were taken, and at the fleet are %d rows that ended, and counted %v", len(taken), ended, dropped.States)
	}
	t.Logf("at the fleet are %d rows, %d of them done, %d open; counted are %v in %d reports", len(rows), done, len(rows)-ended, dropped.States, len(gaps))
	if len(gaps) > 8 {
		t.Errorf("%d reports of results that were dropped", len(gaps))
	}
	p.forget()
}

// gap reads what a row counts of results that were dropped.
func (h *house) gap(id string) (v command.GapValue) {
	h.t.Helper()
	time.Sleep(60 * time.Millisecond) // a caller has 20 requests a second
	if err := json.Unmarshal(h.state(id).Value, &v); err != nil {
		h.t.Fatal(err)
	}
	return v
}

// overAPI gives one from the fleet.
func (h *house) overAPI(n int) (bool, error) {
	err := h.api.Send(h.t.Context(), http.MethodPost, "/api/v1/commands", rest.CommandSpec{
		Name: "set-output", Args: json.RawMessage(fmt.Sprintf(`{"output": "count", "value": %d}`, n)), Boards: []string{board}, ValidS: 60,
	}, nil)
	if err != nil && (strings.Contains(err.Error(), string(rest.CodeTooMany)) || strings.Contains(err.Error(), string(rest.CodeCommandsOpen))) {
		return false, nil
	}
	return err == nil, err
}

// overSocket gives one at the board.
func (h *house) overSocket(n int) (bool, error) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.BoardDir(board), onboard.Socket))
		},
	}}
	body, err := json.Marshal(onboard.Order{Name: "set-output", Args: json.RawMessage(fmt.Sprintf(`{"output": "count", "value": %d}`, n))})
	if err != nil {
		return false, err
	}
	res, err := client.Post("http://board/v1/commands", "application/json", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return false, err
	}
	switch res.StatusCode {
	case http.StatusOK:
		var s onboard.Step
		err := json.Unmarshal(text, &s)
		return s.State != "refused", err
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return false, nil
	}
	return false, fmt.Errorf("%s: %s", res.Status, text)
}
