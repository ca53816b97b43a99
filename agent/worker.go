// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"fulmar/agent/config"
	"fulmar/agent/errand"
	"fulmar/inference/worker"
	"fulmar/internal/run"
	"fulmar/schema"
)

// appendTimeout bounds how long one record may wait for its disk before it is
// given up and counted: ten slow SD-card flushes.
const appendTimeout = 5 * time.Second

// runWorker keeps the inference worker: as a child that is restarted, or as a
// unit of its own that is only spoken to.
func (a *Agent) runWorker(ctx context.Context) error {
	cfg := a.config()
	if cfg.Infer.Mode == "off" {
		return nil
	}
	sup := a.supervisor(&cfg)
	client := worker.NewClient(a.opt.Release, sup.Dial, workerHandler{a}, a.log.With("part", "worker"))
	a.mu.Lock()
	a.worker = client
	if c, ok := sup.(*worker.Child); ok {
		a.child = c
	}
	cfg = a.cfg // from now on whoever changes it tells the worker
	a.mu.Unlock()
	if err := client.Update(a.setup(&cfg)); err != nil {
		return fmt.Errorf("worker setup: %w", err)
	}
	g := run.New(ctx)
	g.Go("supervisor", sup.Run)
	g.Go("client", client.Run)
	g.Go("deaths", func(ctx context.Context) error { return a.watchDeaths(ctx, sup) })
	return g.Wait(stopGrace)
}

func (a *Agent) supervisor(cfg *config.Config) worker.Supervisor {
	if cfg.Infer.Mode == "unit" {
		return &worker.Unit{Socket: cfg.Infer.Socket}
	}
	socket := cfg.Infer.Socket
	if socket == "" || socket == config.Default().Infer.Socket {
		socket = filepath.Join(cfg.Data, "infer.sock")
	}
	args := []string{"--child", "--socket", socket}
	if cfg.Infer.Library != "" {
		args = append(args, "--ort", cfg.Infer.Library)
	}
	if cfg.Infer.TensorRT != "" {
		args = append(args, "--trt", cfg.Infer.TensorRT)
	}
	return &worker.Child{Path: cfg.Infer.Program, Args: args, Socket: socket, Log: a.log.With("part", "worker")}
}

// deathCheck is how often the supervisor is asked about restarts.
const deathCheck = time.Second

// watchDeaths says each restart of a worker that is our child.
func (a *Agent) watchDeaths(ctx context.Context, sup worker.Supervisor) error {
	t := time.NewTicker(deathCheck)
	defer t.Stop()
	for known := uint64(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		n := sup.Restarts()
		if n == known {
			continue
		}
		known = n
		why := "no reason known"
		var end worker.End
		if c, ok := sup.(*worker.Child); ok {
			why, end = c.LastExit(), c.LastEnd()
		}
		a.say("worker", "restarting", schema.SeverityWarn, errand.Death(end, why, n))
	}
}

// workerHandler takes what the worker says into the spool.
type workerHandler struct{ a *Agent }

// Result makes a frame's event, and its picture's index, durable. It is called
// by one goroutine; while it waits for the disk the worker drops its oldest
// results and counts them.
func (h workerHandler) Result(_ context.Context, r *worker.Result) {
	h.a.append(schema.ClassEvent, &schema.Record{Kind: schema.KindEvent, Time: r.Time, Event: &r.Event})
	h.a.control.Event(&r.Event)
	if r.Snapshot != nil {
		defer h.a.errands.Took(r.Event.Source, r.Snapshot.Name)
		h.a.append(schema.ClassSnapshot, &schema.Record{Kind: schema.KindSnapshot, Time: r.Time, Snapshot: r.Snapshot})
	}
}

// Status keeps the newest status and says changes of state to the fleet.
func (h workerHandler) Status(_ context.Context, s *worker.Status) {
	h.a.status.setWorker(*s)
	h.a.control.Cameras(s.Cameras)
	h.a.say("worker", "ok", schema.SeverityInfo, "the inference worker runs")
	for _, m := range s.Models {
		sev, text := schema.SeverityInfo, errand.Model(&m)
		if m.State == "refused" {
			sev, text = schema.SeverityAlarm, "model "+m.Name+" was refused: "+m.Error
		} else if m.State != "ready" {
			continue // loading is a moment, not a state to report
		}
		h.a.say("model/"+m.Name, m.State, sev, text)
	}
	for _, c := range s.Cameras {
		sev, text := schema.SeverityInfo, "camera "+c.Name+" delivers"
		if c.State != "running" {
			sev, text = schema.SeverityAlarm, "camera "+c.Name+": "+c.Error
		}
		h.a.say("camera/"+c.Name, c.State, sev, text)
	}
}

// append encodes a record and gives it to the spool. What cannot be kept is
// counted by class and said in the log; a sampler is never stopped by it.
func (a *Agent) append(class schema.Class, r *schema.Record) { _ = a.keep(class, r) }

// keep is append for who has to know whether it was kept.
func (a *Agent) keep(class schema.Class, r *schema.Record) error {
	b, err := schema.EncodeRecord(r)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
		defer cancel()
		_, err = a.spool.Append(ctx, class, b)
	}
	if err != nil {
		a.status.refuse(class)
		if !errors.Is(err, context.Canceled) {
			a.log.Error("record not kept", "class", class.String(), "kind", r.Kind.String(), "err", err)
		}
	}
	return err
}

// sampleSink takes the scheduler's batches into the spool.
type sampleSink struct{ a *Agent }

func (s sampleSink) Samples(t schema.Time, b *schema.Samples) {
	s.a.control.Samples(b)
	s.a.append(schema.ClassMetric, &schema.Record{Kind: schema.KindSamples, Time: t, Samples: b})
}
