// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package tally puts what the parts of a board count into metrics.
package tally

import (
	"fulmar/inference/worker"
	"fulmar/link"
	"fulmar/schema"
	"fulmar/storage"
)

// Gauge and Counter take one value of a metric.
type (
	Gauge   func(name, help string, v float64, labels ...string)
	Counter func(name, help string, v uint64, labels ...string)
)

// Spool tells of a spool, and of the records that it refused.
func Spool(gauge Gauge, counter Counter, st storage.Stats, refused [schema.NumClasses]uint64) {
	inMemory, encrypted := 0.0, 0.0
	if st.Memory != "" {
		inMemory = 1
	}
	if st.Keys != nil {
		encrypted = 1
	}
	gauge("spool_memory_mode", "1 while there is no disk and records stay in memory.", inMemory)
	gauge("spool_encrypted", "1 where records are encrypted on disk.", encrypted)
	for _, class := range schema.Classes() {
		s, l := st.Classes[class], class.String()
		gauge("spool_bytes", "Bytes on disk.", float64(s.Bytes), "class", l)
		gauge("spool_outstanding_records", "Records not acknowledged yet.", float64(s.Outstanding), "class", l)
		gauge("spool_oldest_age_seconds", "Age of the oldest record not acknowledged.", s.OldestAge.Seconds(), "class", l)
		gauge("spool_loss_window_seconds", "How long a record may live in memory only.", s.LossWindow.Seconds(), "class", l)
		counter("spool_appended_total", "Records written to disk.", s.Appended, "class", l)
		counter("spool_acked_total", "Records acknowledged.", s.Acked, "class", l)
		gauge("spool_memory_records", "Records that are only in memory, for want of a disk.", float64(st.Held[class]), "class", l)
		counter("spool_payload_bytes_total", "Bytes of records written to disk.", s.AppendedBytes, "class", l)
		counter("spool_quarantined_total", "Damaged files moved to quarantine.", s.Quarantined, "class", l)
		counter("spool_commits_total", "Durable commits.", s.Commits, "class", l)
		counter("spool_refused_total", "Records that could not be kept.", refused[class], "class", l)
		for reason, n := range s.Lost {
			if n > 0 {
				counter("spool_lost_total", "Records lost, by reason; each is in the loss ledger.", n, "class", l, "reason", schema.Reason(reason).String())
			}
		}
	}
}

// Link tells of a session; nil: there is none yet.
func Link(gauge Gauge, counter Counter, s *link.Session) {
	if s == nil {
		gauge("link_up", "1 while records flow to the fleet.", 0)
		return
	}
	st := s.Status()
	up := 0.0
	if st.Up() {
		up = 1
	}
	gauge("link_up", "1 while records flow to the fleet.", up)
	counter("link_generations_total", "Connections made.", st.Generation)
	counter("link_published_total", "Records published, repeats included.", st.Published)
	counter("link_acked_total", "Records acknowledged.", st.Acked)
	counter("link_resent_total", "Records published again after a lost connection.", st.Resent)
	counter("link_refused_total", "Records that can never be sent; each is in the loss ledger.", st.Refused)
	counter("link_false_acks_total", "Words of the fleet that acknowledge records which were never sent; they free nothing.", st.FalseAcks)
	gauge("link_in_flight_messages", "Messages waiting for their PUBACK.", float64(st.InFlight))
}

// Worker tells of the inference worker, and of its ends where it is a child.
func Worker(gauge Gauge, counter Counter, w *worker.Status, child *worker.Child) {
	if child != nil {
		ends := child.Ends()
		for _, e := range []worker.End{worker.EndDeviceLost, worker.EndKilled, worker.EndFailed, worker.EndItself} {
			counter("worker_ends_total", "Ends of the inference worker that nobody asked for, by cause; each is followed by a start.", ends[e], "cause", string(e))
		}
	}
	for _, m := range w.Models {
		fallback := 0.0
		if m.Fallback != "" {
			fallback = 1
		}
		gauge("model_fallback", "1 while the model runs on ONNX Runtime for want of TensorRT or its engine.", fallback, "model", m.Name, "engine", m.Engine)
	}
	counter("worker_results_dropped_total", "Results that found no reader.", w.ResultsDropped)
	gauge("worker_picture_bytes", "Bytes of pictures kept.", float64(w.BlobBytes))
	counter("worker_pictures_evicted_total", "Pictures evicted by the quota.", w.BlobsEvicted)
	for _, c := range w.Cameras {
		counter("camera_frames_total", "Frames taken from the source.", c.Frames, "camera", c.Name)
		counter("camera_inferred_total", "Frames looked at by the model.", c.Inferred, "camera", c.Name)
		counter("camera_dropped_total", "Frames dropped, by cause.", c.Late, "camera", c.Name, "cause", "late")
		counter("camera_dropped_total", "Frames dropped, by cause.", c.Bad, "camera", c.Name, "cause", "unreadable")
		gauge("camera_fps", "Frames looked at per second, over 5 s.", c.FPS, "camera", c.Name)
		gauge("camera_latency_seconds", "Capture to detections, last 256 frames.", float64(c.P50Us)/1e6, "camera", c.Name, "quantile", "0.5")
		gauge("camera_latency_seconds", "Capture to detections, last 256 frames.", float64(c.P99Us)/1e6, "camera", c.Name, "quantile", "0.99")
	}
}
