// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package errand is what is asked of the inference worker beside its config: a picture
// now, and to start anew. It travels with the worker's setup, so that it survives a
// connection that breaks.
package errand

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"fulmar/command"
	"fulmar/inference/worker"
)

// look is how often the worker is looked for after it was told to start anew.
const look = 100 * time.Millisecond

// Errands are those of one board. Set Client, Cameras and Update before the first one.
type Errands struct {
	// Client is the worker's, nil where none runs. Cameras are those of the config.
	Client  func() *worker.Client
	Cameras func() []string
	// Update sends the setup, with what Setup adds, to the worker.
	Update func(*worker.Client) error

	mu       sync.Mutex
	pictures map[string]uint64 // asked for, by camera
	life     uint64
	waiting  map[string][]chan<- string // for a picture, by camera
}

// Setup gives the setup with what is asked for.
func (e *Errands) Setup(s worker.Setup) worker.Setup {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.Life = e.life
	for _, c := range s.Cameras {
		if n := e.pictures[c.Name]; n > 0 {
			if s.Asked == nil {
				s.Asked = map[string]uint64{}
			}
			s.Asked[c.Name] = n
		}
	}
	return s
}

// Took tells of each picture that the worker kept.
func (e *Errands) Took(camera, picture string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.waiting[camera] {
		w <- picture // 1-buffered, and taken off the list
	}
	delete(e.waiting, camera)
}

// tell sends the worker what is asked of it.
func (e *Errands) tell() (*worker.Client, worker.State, error) {
	client := e.Client()
	if client == nil {
		return nil, worker.State{}, &command.Error{Code: "no-worker", Text: "no inference worker runs on this board: infer.mode is off, or it is not started yet"}
	}
	st := client.State()
	if !st.Connected {
		return nil, st, &command.Error{Code: "no-worker", Text: "the inference worker is not there now: " + st.Error}
	}
	return client, st, e.Update(client)
}

// Snapshot keeps a picture of the camera's next frame and gives its name.
func (e *Errands) Snapshot(ctx context.Context, camera string) (string, error) {
	if !slices.Contains(e.Cameras(), camera) {
		return "", &command.Error{Code: "no-such-camera", Text: fmt.Sprintf("this board has no camera %.70q", camera)}
	}
	got := make(chan string, 1)
	e.mu.Lock()
	if e.pictures == nil {
		e.pictures, e.waiting = map[string]uint64{}, map[string][]chan<- string{}
	}
	e.pictures[camera]++
	e.waiting[camera] = append(e.waiting[camera], got)
	e.mu.Unlock()
	defer e.forget(camera, got)
	if _, _, err := e.tell(); err != nil {
		return "", err
	}
	select {
	case name := <-got:
		return name, nil
	case <-ctx.Done():
		return "", fmt.Errorf("no frame of camera %s came: %w", camera, context.Cause(ctx))
	}
}

// forget takes one that waited off the list.
func (e *Errands) forget(camera string, got chan<- string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting[camera] = slices.DeleteFunc(e.waiting[camera], func(w chan<- string) bool { return w == got })
	if len(e.waiting[camera]) == 0 {
		delete(e.waiting, camera)
	}
}

// Restart has the worker end, and waits for the next one.
func (e *Errands) Restart(ctx context.Context) error {
	e.mu.Lock()
	old := e.life
	for e.life == old || e.life == 0 {
		e.life = rand.Uint64() // not what an earlier fulmard asked for
	}
	e.mu.Unlock()
	client, before, err := e.tell()
	if err != nil {
		return err
	}
	for {
		if st := client.State(); st.Connected && st.Connects > before.Connects {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the worker is not back: %w", context.Cause(ctx))
		case <-time.After(look):
		}
	}
}

// anyTime is how long RestartAny waits for the worker to be back.
const anyTime = 30 * time.Second

// RestartAny has the worker start anew, if one runs. One that takes its time to be back is no
// error: what it runs from is chosen at its start.
func (e *Errands) RestartAny(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, anyTime)
	defer stop()
	err := e.Restart(ctx)
	var none *command.Error
	if errors.As(err, &none) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// Told has the worker told of its setup again, if one runs: what it is made of has changed.
func (e *Errands) Told() {
	if c := e.Client(); c != nil {
		_ = e.Update(c) // refused alone where it is out of bounds, which the config has been checked for
	}
}
