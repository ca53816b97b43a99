// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"fulmar/fleet/api"
	"fulmar/fleet/enrol"
	"fulmar/fleet/entrance"
)

// metrics serves the server's own numbers to whoever may read the API. They are
// counters of the whole process and carry no board's name.
func (s *Server) metrics(who entrance.Auth) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string, value func() uint64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "fulmar_fleet_" + name, Help: help},
			func() float64 { return float64(value()) }))
	}
	counter("messages_total", "Messages stored.", func() uint64 { return s.ingest.Stats().Messages })
	counter("records_total", "Records stored, each once.", func() uint64 { return s.ingest.Stats().Records })
	counter("duplicates_total", "Records turned away because they had arrived before.", func() uint64 { return s.ingest.Stats().Duplicates })
	counter("refused_total", "Messages and records that can never be understood.", func() uint64 { return s.ingest.Stats().Refused })
	counter("unknown_total", "Messages refused of which not even the record numbers could be told.", func() uint64 { return s.ingest.Stats().Unknown })
	counter("newer_total", "Messages of a newer wire version than this fleet reads; their boards keep them.", func() uint64 { return s.ingest.Stats().Newer })
	counter("commits_total", "Transactions of the ledger.", func() uint64 { return s.ingest.Stats().Commits })
	counter("commit_failures_total", "Transactions of the ledger that failed.", func() uint64 { return s.ingest.Stats().Failures })
	counter("chunks_total", "Pieces of pictures stored.", func() uint64 { return s.ingest.Stats().Chunks })
	counter("connections_denied_total", "Connections of boards turned away.", func() uint64 { return s.gate.Stats().Denied })
	counter("connections_total", "Connections of boards accepted.", func() uint64 { return s.gate.Stats().Accepted })
	counter("messages_not_stored_total", "Messages whose connection was closed without an answer.", func() uint64 { return s.gate.Stats().Failed })
	counter("attestations_asked_total", "Boards asked what they run.", func() uint64 { return s.proofs.Stats().Asked })
	counter("attestations_good_total", "Attestations that were believed.", func() uint64 { return s.proofs.Stats().Good })
	counter("attestations_refused_total", "Attestations that were not believed; the audit log says why.", func() uint64 { return s.proofs.Stats().Refused })
	counter("attestations_unasked_total", "Attestations that nobody had asked for.", func() uint64 { return s.proofs.Stats().Unasked })
	counter("attestations_failed_total", "Questions and answers lost to a fault of the registry.", func() uint64 { return s.proofs.Stats().Failed })
	counter("sessions_shut_total", "Connections ended because the certificate is good no longer.", func() uint64 { return s.gate.Stats().Shut })
	counter("twin_messages_total", "Words of boards on their twins.", func() uint64 { return s.shadow.Stats().Messages })
	counter("twin_stored_total", "Of these, those that changed something.", func() uint64 { return s.shadow.Stats().Stored })
	counter("twin_refused_total", "Of these, those of which a part was not taken; the log says why.", func() uint64 { return s.shadow.Stats().Refused })
	counter("twin_versions_total", "Versions of what boards shall be.", func() uint64 { return s.shadow.Stats().Edits })
	counter("objects_asked_total", "Words of boards that ask for pieces of what they install.", func() uint64 { return s.updates.Stats().Wants })
	counter("objects_held_total", "Of these, those that were told to wait.", func() uint64 { return s.updates.Stats().Held })
	counter("objects_refused_total", "Of these, those refused.", func() uint64 { return s.updates.Stats().Refused })
	counter("objects_pieces_total", "Pieces given to one board each.", func() uint64 { return s.updates.Stats().Sent })
	counter("objects_cast_total", "Pieces given once to all boards that listened.", func() uint64 { return s.updates.Stats().Cast })
	counter("objects_bytes_total", "Bytes of both.", func() uint64 { return s.updates.Stats().Bytes })
	counter("objects_https_bytes_total", "Bytes given over HTTPS.", func() uint64 { return s.updates.Stats().Web })
	counter("clones_total", "Times that two boards were found to use one identity.", s.twins.Load)
	counter("enrolled_total", "First certificates given to boards, and those of boards that enrolled again.", func() uint64 { return s.desk.Stats().Issued })
	counter("renewed_total", "Certificates renewed.", func() uint64 { return s.desk.Stats().Renewed })
	counter("enrol_waiting_total", "Requests of boards answered with: a person has to decide.", func() uint64 { return s.desk.Stats().Waiting })
	for _, c := range enrol.Codes() {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "fulmar_fleet_enrol_refused_total", Help: "Requests of boards refused, by reason.", ConstLabels: prometheus.Labels{"reason": string(c)},
		}, func() float64 { return float64(s.desk.Stats().Refused[c]) }))
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fulmar_fleet_boards_connected", Help: "Boards connected now."},
		func() float64 { return float64(s.gate.Stats().Connected) }))
	if s.out != nil {
		counter("foreign_messages_total", "Messages stored from the foreign broker.", func() uint64 { return s.out.Stats().Messages })
		counter("foreign_dropped_total", "Messages of the foreign broker not stored; their boards send again.", func() uint64 { return s.out.Stats().Dropped })
		counter("foreign_refused_total", "Messages of the foreign broker that can never be understood.", func() uint64 { return s.out.Stats().Refused })
	}
	h := promhttp.HandlerFor(prometheus.Gatherers{reg, s.series.Collectors()}, promhttp.HandlerOpts{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := who.Reader(r); err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer realm="fulmar"`)
			api.Problem(w, http.StatusUnauthorized, "not-logged-in", "Log in, or send an API token")
			return
		}
		h.ServeHTTP(w, r)
	})
}
