// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"fulmar/schema/rest"
	"fulmar/tests/fleet/sim"
	"fulmar/tests/local"
)

const (
	// twinBoards are the boards that one person changes at once.
	twinBoards = 1000
	twinRounds = 6
)

// twin is how long it takes from a person's change of many boards, by the API, until each
// board has applied it, has said so, and has the acknowledgement of that, which the server
// sends when it is stored. All over mutual TLS and MQTT.
func twin(bin string, _ int, _ time.Duration) error {
	b, err := open(bin)
	if err != nil {
		return err
	}
	defer b.close()
	w := &awaits{}
	f, err := b.start(sim.Config{Boards: twinBoards, Sites: 100, Every: -1, EventEvery: -1, PictureEvery: -1, Spread: true, Became: w.became})
	if err != nil {
		return err
	}
	if err := b.connected(f, twinBoards); err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // their first words of the twin
	api, err := b.Admin()
	if err != nil {
		return err
	}
	var names []string
	for _, x := range f.Boards() {
		names = append(names, x.Name)
	}
	for _, n := range []int{1, 100, twinBoards} {
		if err := w.rounds(b.Site, api, names[:n]); err != nil {
			return err
		}
	}
	return nil
}

// rounds changes boards a few times and tells of all changes together.
func (w *awaits) rounds(s *local.Site, api *local.API, names []string) error {
	var took []float64
	var answered time.Duration
	before, err := local.UsageOf(s.Fleet.PID())
	if err != nil {
		return err
	}
	rounds := twinRounds
	if len(names) == 1 {
		rounds *= 10
	}
	for i := range rounds {
		level := []string{`"debug"`, `"info"`}[i%2]
		w.begin(names)
		begin := time.Now()
		var done rest.List[rest.TwinChanged]
		err := api.Post(context.Background(), "/api/v1/twins", rest.TwinBulk{
			Boards: names, TwinPatch: rest.TwinPatch{Set: map[string]json.RawMessage{"log.level": json.RawMessage(level)}, Reason: "measured"},
		}, &done)
		if err != nil {
			return err
		}
		answered = max(answered, time.Since(begin))
		for _, d := range done.Items {
			if d.Error != "" {
				return fmt.Errorf("change of %s: %s", d.Board, d.Error)
			}
		}
		all, err := w.all(begin, 30*time.Second)
		if err != nil {
			return err
		}
		took = append(took, all...)
		time.Sleep(200 * time.Millisecond) // below what one caller may ask
	}
	u, err := local.UsageOf(s.Fleet.PID())
	if err != nil {
		return err
	}
	slices.Sort(took)
	fmt.Printf("| change of %d of %d boards by the API to applied, reported and stored, TLS and MQTT, p50 / p99 / most of %d | %.0f / %.0f / %.0f ms; the answer after %.0f ms at most; %.2f ms of processor time of the server a board |\n",
		len(names), twinBoards, len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1], float64(answered.Milliseconds()),
		(u.CPU-before.CPU).Seconds()*1e3/float64(len(took)))
	return nil
}

// awaits notes when boards have become what was wanted.
type awaits struct {
	mu   sync.Mutex
	open map[string]bool
	at   []time.Time
	done chan struct{}
}

func (w *awaits) begin(names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open, w.at, w.done = map[string]bool{}, nil, make(chan struct{})
	for _, n := range names {
		w.open[n] = true
	}
}

func (w *awaits) became(board string, _ uint64) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.open[board] {
		return
	}
	delete(w.open, board)
	w.at = append(w.at, now)
	if len(w.open) == 0 {
		close(w.done)
	}
}

// all gives how long each took, ms.
func (w *awaits) all(begin time.Time, patience time.Duration) (ms []float64, err error) {
	select {
	case <-w.done:
	case <-time.After(patience):
		w.mu.Lock()
		defer w.mu.Unlock()
		return nil, fmt.Errorf("%d boards have not become what was wanted within %v", len(w.open), patience)
	}
	for _, at := range w.at {
		ms = append(ms, float64(at.Sub(begin).Microseconds())/1000)
	}
	return ms, nil
}
