// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"fulmar/agent/commands"
	"fulmar/agent/config"
	"fulmar/command"
	"fulmar/inference/worker"
	"fulmar/link"
	"fulmar/schema"
)

// openCommands readies the board's commands.
func (a *Agent) openCommands() (*commands.Service, error) {
	return commands.Open(commands.Config{
		Address: a.address, Dir: a.cfg.Data, Clock: a.clock, Release: a.opt.Release,
		Now: a.authority.Now, Open: a.authority.Command, Operator: a.authority.Operator, Send: a.sendResult,
		Log:    a.log.With("part", "commands"),
		Newest: a.newest, Worker: workerCommands{a}, Stop: a.stopFor,
		Diagnose: a.diagnose, Keep: a.keepFile,
	})
}

// address is whose board this is, as far as it has a name.
func (a *Agent) address() (tenant, board string) {
	cfg := a.config()
	if cfg.Broker.Address != "" {
		return cfg.Broker.Tenant, cfg.Board
	}
	if id := a.identity.Load(); id != nil {
		return id.Tenant, id.Board
	}
	return "", ""
}

// uplink is a link that takes more than records.
type uplink interface {
	Send(ctx context.Context, ch schema.Channel, tail string, payload []byte) error
}

// sendResult brings a report on its way.
func (a *Agent) sendResult(ctx context.Context, id string, payload []byte) error {
	if u, ok := any(a.link.Load()).(uplink); ok && a.link.Load() != (*link.Session)(nil) {
		return u.Send(ctx, schema.ChanResult, id, payload)
	}
	return errors.New("the link takes no results")
}

// stopFor ends the program in order: systemd or the launcher starts it again.
func (a *Agent) stopFor(why string) {
	a.log.Info("ended to be started anew", "why", why)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stop != nil {
		a.stop()
	}
}

// keepFile brings a file to the fleet as pictures go there: the file, then its record.
func (a *Agent) keepFile(_ context.Context, name, media, source string, data []byte) error {
	sum, err := a.blobs.Put(name, data)
	if err != nil {
		return err
	}
	a.append(schema.ClassSnapshot, &schema.Record{
		Kind: schema.KindSnapshot, Time: a.clock.Now(),
		Snapshot: &schema.Snapshot{Name: name, Size: int64(len(data)), SHA256: sum, Media: media, Source: source},
	})
	return nil
}

// asks is what was asked of the worker beside its config; it goes with the setup.
type asks struct {
	mu       sync.Mutex
	pictures map[string]uint64
	life     uint64
	waiting  map[string][]chan<- string // by camera
}

// setup is what the worker is to have now.
func (a *Agent) setup(cfg *config.Config) worker.Setup {
	s := cfg.Setup()
	a.asked.mu.Lock()
	defer a.asked.mu.Unlock()
	s.Life = a.asked.life
	for _, c := range s.Cameras {
		if n := a.asked.pictures[c.Name]; n > 0 {
			if s.Asked == nil {
				s.Asked = map[string]uint64{}
			}
			s.Asked[c.Name] = n
		}
	}
	return s
}

// took hands the name of a picture to who asked for it.
func (k *asks) took(camera, picture string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.waiting[camera] {
		w <- picture // 1-buffered, and taken off the list
	}
	delete(k.waiting, camera)
}

// workerCommands is the worker as commands see it.
type workerCommands struct{ a *Agent }

// tell sends the worker what is asked of it.
func (w workerCommands) tell() error {
	w.a.mu.Lock()
	client, cfg := w.a.worker, w.a.cfg
	w.a.mu.Unlock()
	if client == nil {
		return &command.Error{Code: "no-worker", Text: "no inference worker runs on this board: infer.mode is off, or it is not started yet"}
	}
	if st := client.State(); !st.Connected {
		return &command.Error{Code: "no-worker", Text: "the inference worker is not there now: " + st.Error}
	}
	return client.Update(w.a.setup(&cfg))
}

// Snapshot keeps a picture of the camera's next frame.
func (w workerCommands) Snapshot(ctx context.Context, camera string) (string, error) {
	cfg := w.a.config()
	known := false
	for _, c := range cfg.Cameras {
		known = known || c.Name == camera
	}
	if !known {
		return "", &command.Error{Code: "no-such-camera", Text: fmt.Sprintf("this board has no camera %.70q", camera)}
	}
	k, got := &w.a.asked, make(chan string, 1)
	k.mu.Lock()
	if k.pictures == nil {
		k.pictures, k.waiting = map[string]uint64{}, map[string][]chan<- string{}
	}
	k.pictures[camera]++
	k.waiting[camera] = append(k.waiting[camera], got)
	k.mu.Unlock()
	if err := w.tell(); err != nil {
		return "", err
	}
	select {
	case name := <-got:
		return name, nil
	case <-ctx.Done():
		return "", fmt.Errorf("no frame of camera %s came: %w", camera, context.Cause(ctx))
	}
}

// Restart has the worker end, and waits for the next one.
func (w workerCommands) Restart(ctx context.Context) error {
	k := &w.a.asked
	k.mu.Lock()
	for k.life++; k.life <= 1; {
		k.life = rand.Uint64() // not what an earlier fulmard asked for
	}
	k.mu.Unlock()
	w.a.mu.Lock()
	client := w.a.worker
	w.a.mu.Unlock()
	var before uint64
	if client != nil {
		before = client.State().Connects
	}
	if err := w.tell(); err != nil {
		return err
	}
	for {
		if st := client.State(); st.Connected && st.Connects > before {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the worker is not back: %w", context.Cause(ctx))
		case <-time.After(deathCheck / 10):
		}
	}
}
