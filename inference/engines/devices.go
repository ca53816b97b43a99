// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"fulmar/inference"
	"fulmar/inference/engines/build"
	"fulmar/inference/engines/cache"
	"fulmar/inference/model"
)

// slowDLA is how much slower than the GPU's an engine for a DLA may be and still be
// worth a core: much of it runs on the GPU otherwise, and takes more than it gives.
const slowDLA = 4

// running is an engine of the cache in use.
type running struct {
	id    string
	entry *cache.Entry
	*model.Detector
}

// onDevices takes the engine of the GPU out of the cache into use, and beside it one
// on each core of a DLA, if they are wanted and that engine is there.
func (ch *choice) onDevices(ctx context.Context) (*inference.Loaded, error) {
	lost := make(chan error, 1)
	first, err := ch.take(ctx, ch.id, onGPU, lost)
	if err != nil {
		return nil, err
	}
	all := []*running{first}
	for core := range ch.cores(first) {
		r, err := ch.take(ctx, ch.dla, core, lost)
		switch {
		case err == nil:
			all = append(all, r)
			continue
		case errors.Is(err, inference.ErrDeviceLost):
			return nil, err
		}
		ch.c.cfg.Log.Warn("a DLA core is not used", "model", ch.m.Name, "core", core, "error", err)
	}
	l := loaded(first.Detector, ch.device.String())
	l.OnDevice = true
	l.Detectors = l.Detectors[:0]
	for _, r := range all {
		l.Detectors = append(l.Detectors, r.Detector)
	}
	if n := len(all) - 1; n > 0 {
		l.EngineVersion += fmt.Sprintf(" and %d DLA cores", n)
	}
	l.Close = func() error { return ch.giveBack(all, lost) }
	l.Tend = func(ctx context.Context, say func(inference.Notes)) (*inference.Loaded, error) {
		return ch.watch(ctx, all, lost, say)
	}
	return l, nil
}

// cores is how many cores of a DLA to use beside the GPU: none if the engine for them
// is not there, barred, or not worth it.
func (ch *choice) cores(gpu *running) int {
	if !ch.kept.DLA || ch.device.DLACores == 0 || !ch.ready(ch.dla) {
		return 0
	}
	if r := ch.cache.Record(ch.dla); r.BarredFor(ch.pkg) != "" {
		return 0
	}
	meta, err := ch.cache.Meta(ch.dla)
	if err != nil {
		ch.c.cfg.Log.Warn("the DLA is not used", "model", ch.m.Name, "error", err)
		return 0
	}
	if us, most := meta.RunUs, slowDLA*max(1, gpu.entry.Meta.RunUs); us > most {
		why := fmt.Sprintf("the DLA is not used: %d us a picture there, %d on the GPU, and %d of %d layers are left to the GPU",
			us, gpu.entry.Meta.RunUs, len(meta.OnGPU), meta.Layers)
		ch.c.cfg.Log.Info(why, "model", ch.m.Name)
		if err := ch.cache.Refuse(ch.dla, ch.pkg, why); err != nil {
			ch.c.cfg.Log.Warn("refusal not noted", "model", ch.m.Name, "error", err)
		}
		return 0
	}
	return ch.device.DLACores
}

// take takes one engine into use. Its record says that it is being tried until it ran
// well for a while or was given back in order.
func (ch *choice) take(ctx context.Context, id string, core int, lost chan error) (*running, error) {
	e, err := ch.cache.Take(id)
	if err != nil {
		return nil, err
	}
	ch.begin(id)
	d, err := ch.detector(ctx, "tensorrt", func([]byte) (model.Engine, error) {
		defer debug.FreeOSMemory() // the plan's bytes, tens of megabytes, are the library's now
		eng, err := ch.gpu.Load(e.Plan, core, func(err error) {
			select {
			case lost <- err:
			default: // it was told
			}
		})
		e.Plan = nil
		return eng, err
	})
	if err != nil {
		e.Release()
		return nil, ch.notTaken(id, err, lost)
	}
	return &running{id, e, d}, nil
}

// begin notes that an engine is tried; several users of one are one try.
func (ch *choice) begin(id string) {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	if ch.c.trying[id]++; ch.c.trying[id] > 1 {
		return
	}
	if err := ch.cache.Begin(id); err != nil {
		// A full disk must not cost the GPU; only the count of deaths is off.
		ch.c.cfg.Log.Warn("use of an engine not noted", "model", ch.m.Name, "error", err)
	}
}

// good forgives an engine its past.
func (ch *choice) good(id string) error {
	ch.c.mu.Lock()
	defer ch.c.mu.Unlock()
	delete(ch.c.trying, id)
	return ch.cache.Good(id)
}

// notTaken settles an engine that could not be taken into use. The process goes on,
// unless the device is lost, so it is no death.
func (ch *choice) notTaken(id string, err error, lost chan error) error {
	select {
	case l := <-lost:
		return deviceLost(l)
	default:
	}
	switch {
	case errors.Is(err, inference.ErrDeviceLost):
		return err
	case errors.Is(err, model.ErrGolden) || errors.Is(err, model.ErrNetwork):
		return errors.Join(err, ch.good(id), ch.cache.Refuse(id, ch.pkg, "its engine is refused: "+err.Error()), ch.cache.Remove(id))
	case errors.Is(err, build.ErrPlan):
		return errors.Join(err, ch.good(id), ch.cache.Remove(id))
	}
	return errors.Join(err, ch.good(id))
}

func deviceLost(err error) error {
	if errors.Is(err, inference.ErrDeviceLost) {
		return err
	}
	return fmt.Errorf("%w: %w", inference.ErrDeviceLost, err)
}

// watch forgives the engines their past when they ran for a while, tells when their
// device is lost, and meanwhile has one built for the DLA, if that is wanted.
func (ch *choice) watch(ctx context.Context, all []*running, lost chan error, say func(inference.Notes)) (*inference.Loaded, error) {
	t := time.NewTimer(ch.c.cfg.good)
	defer t.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var more chan grown // nil: none comes
	if len(all) == 1 && ch.wantsDLA() {
		more = make(chan grown, 1)
		go func() {
			l, err := ch.beside(ctx, say)
			more <- grown{l, err}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			if more == nil {
				return nil, nil
			}
			g := <-more // it ends soon: its context has
			if g.loaded != nil {
				g.err = errors.Join(g.err, g.loaded.Close())
			}
			return nil, g.err
		case err := <-lost:
			lost <- err // for giveBack
			return nil, deviceLost(err)
		case g := <-more:
			if g.loaded != nil || g.err != nil {
				return g.loaded, g.err
			}
			more = nil
		case <-t.C:
			for _, r := range all {
				if err := ch.good(r.id); err != nil {
					ch.c.cfg.Log.Warn("use of an engine not noted", "model", ch.m.Name, "error", err)
				}
			}
		}
	}
}

// wantsDLA says whether an engine for a DLA is to be built.
func (ch *choice) wantsDLA() bool {
	r := ch.cache.Record(ch.dla)
	return ch.kept.DLA && ch.device.DLACores > 0 && ch.device.Parser && r.BarredFor(ch.pkg) == "" && !ch.ready(ch.dla)
}

// grown is what beside gives.
type grown struct {
	loaded *inference.Loaded
	err    error
}

// beside builds the engine for the DLA and loads all of them anew. That it is not to
// be had costs nothing that runs and is no error; a lost device is.
func (ch *choice) beside(ctx context.Context, say func(inference.Notes)) (*inference.Loaded, error) {
	err := ch.c.cfg.Builds.Build(ctx, ch.job(onDLA), ch.cache.Free, func(text string) {
		if ctx.Err() == nil {
			say(inference.Notes{Build: "for the DLA: " + text})
		}
	})
	if ctx.Err() != nil {
		return nil, nil
	}
	say(inference.Notes{})
	var l *inference.Loaded
	if err == nil {
		l, err = ch.onDevices(ctx)
	}
	switch {
	case errors.Is(err, inference.ErrDeviceLost):
		return nil, err
	case err != nil:
		ch.c.cfg.Log.Warn("the DLA is not used", "model", ch.m.Name, "error", err)
		return nil, nil
	case len(l.Detectors) == 1: // it is not worth it
		return nil, l.Close()
	}
	return l, nil
}

// giveBack closes the engines. Their records are cleared, unless the device was lost.
func (ch *choice) giveBack(all []*running, lost chan error) error {
	var errs []error
	for _, r := range all {
		errs = append(errs, r.Close())
		r.entry.Release()
	}
	select {
	case l := <-lost:
		return errors.Join(append(errs, l)...)
	default:
	}
	for _, r := range all {
		errs = append(errs, ch.good(r.id))
	}
	return errors.Join(errs...)
}
