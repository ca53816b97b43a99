// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// maxAsks bounds those who wait for a picture of one camera.
const maxAsks = 16

// ErrNoCamera: the setup has no camera of that name, or its model is paused.
var ErrNoCamera = errors.New("no such camera is looked at")

// Asks puts what people want of a worker into its setup: a picture now, a restart. Both
// are words of the setup, so that a worker which is away hears of them when it is back.
type Asks struct {
	Client *Client
	Now    func() uint64 // CLOCK_BOOTTIME, ns: each ask is newer than all before it

	mu      sync.Mutex
	setup   Setup
	waiting map[string][]chan<- string // for a picture's name, by camera
}

// Update is that of [Client], with what was asked for.
func (a *Asks) Update(s Setup) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Shots, s.Again = a.setup.Shots, a.setup.Again
	a.setup = s
	return a.Client.Update(s)
}

// Restart has the worker ended, so that whoever keeps it starts it again.
func (a *Asks) Restart(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setup.Again = max(a.Now(), a.setup.Again+1)
	return a.Client.Update(a.setup)
}

// Snapshot keeps a camera's next frame and gives the picture's name.
func (a *Asks) Snapshot(ctx context.Context, camera string) (string, error) {
	got, err := a.ask(camera)
	if err != nil {
		return "", err
	}
	select {
	case name := <-got:
		return name, nil
	case <-ctx.Done():
		a.mu.Lock()
		a.waiting[camera] = slices.DeleteFunc(a.waiting[camera], func(w chan<- string) bool { return w == got })
		a.mu.Unlock()
		return "", fmt.Errorf("camera %s gave no picture in time: %w", camera, context.Cause(ctx))
	}
}

func (a *Asks) ask(camera string) (chan string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.ContainsFunc(a.setup.Cameras, func(c Camera) bool { return c.Name == camera }) {
		return nil, fmt.Errorf("camera %s: %w", camera, ErrNoCamera)
	}
	if len(a.waiting[camera]) >= maxAsks {
		return nil, fmt.Errorf("camera %s: %d wait for a picture already", camera, maxAsks)
	}
	shots := maps.Clone(a.setup.Shots)
	if shots == nil {
		shots = map[string]uint64{}
	}
	maps.DeleteFunc(shots, func(name string, _ uint64) bool { // of cameras that are gone
		return !slices.ContainsFunc(a.setup.Cameras, func(c Camera) bool { return c.Name == name })
	})
	shots[camera] = max(a.Now(), shots[camera]+1)
	a.setup.Shots = shots
	got := make(chan string, 1)
	if a.waiting == nil {
		a.waiting = map[string][]chan<- string{}
	}
	a.waiting[camera] = append(a.waiting[camera], got)
	return got, a.Client.Update(a.setup)
}

// Result looks at what the worker sends: pictures go to those who wait for one.
func (a *Asks) Result(r *Result) {
	if r.Snapshot == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.waiting[r.Event.Source] {
		w <- r.Snapshot.Name // each has room for one
	}
	delete(a.waiting, r.Event.Source)
}
