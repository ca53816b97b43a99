// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fulmar/agent/scrape"
	"fulmar/agent/tally"
)

// metrics tells a scraper what the parts count: they know nothing of it and pay nothing
// between scrapes.
func (a *Agent) metrics(p *scrape.Page) {
	gauge := func(name, help string, v float64, labels ...string) { p.Gauge("fulmar_"+name, help, v, labels...) }
	counter := func(name, help string, v uint64, labels ...string) { p.Counter("fulmar_"+name, help, v, labels...) }
	gauge("build_info", "1, with the version as a label.", 1, "version", a.opt.Release)
	a.status.mu.Lock()
	refused, w := a.status.refused, a.status.worker
	a.status.mu.Unlock()
	a.mu.Lock()
	child := a.child
	a.mu.Unlock()
	tally.Spool(gauge, counter, a.spool.Stats(), refused)
	tally.Link(gauge, counter, a.link.Load())
	a.collectIdentity(gauge, counter)
	tally.Worker(gauge, counter, &w, child)
	sch := a.scheduler.Stats()
	counter("schedule_ticks_total", "Ticks run.", sch.Ticks)
	counter("schedule_missed_total", "Ticks left out: suspended or overloaded.", sch.Missed)
	gauge("schedule_stuck_sensors", "Sensors whose read has not come back.", float64(len(sch.Stuck)))
}
