// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math"
	"time"

	"fulmar/schema"
)

// Trouble is what is wrong with a board.
type Trouble string

// The troubles. In a fleet with [Config.Sick] every eighth board or so has one.
const (
	TroubleNone   Trouble = ""
	TroubleHot    Trouble = "hot"    // its fan is worn: it throttles and says so
	TroubleCamera Trouble = "camera" // one of its cameras gives no frames
	TroubleFlaps  Trouble = "flaps"  // its connection drops again and again
	TroubleSensor Trouble = "sensor" // a power rail gives no value
	TroubleDisk   Trouble = "disk"   // its disk is full: it loses samples, and says which
	TroubleClock  Trouble = "clock"  // its wall clock stands in 1970
	TroubleOld    Trouble = "old"    // it runs an old release and an old model
	TroubleSilent Trouble = "silent" // connected, and sends nothing after a minute
	TroubleUplink Trouble = "uplink" // of a site: no way to the fleet for some minutes in each ten
)

// troubles in the order in which boards get them.
func troubles() []Trouble {
	return []Trouble{TroubleHot, TroubleCamera, TroubleFlaps, TroubleSensor, TroubleDisk, TroubleClock, TroubleOld, TroubleSilent}
}

// sickEvery is one in how many boards has a trouble of its own.
const sickEvery = 8

// The uplink of the last site goes first after outageFirst, then every outageEvery.
const (
	outageFirst = 90 * time.Second
	outageFor   = 4 * time.Minute
	outageEvery = 10 * time.Minute
)

// site is a place with boards.
type site struct {
	number   int
	name     string
	place    string // what its boards stand at
	lat, lon float64
}

// siteOf gives a site by its number: where names run out, numbers follow.
func siteOf(n, row int) *site {
	all := []site{
		{name: "hamburg", lat: 53.54, lon: 9.97},
		{name: "rotterdam", lat: 51.95, lon: 4.14},
		{name: "poznan", lat: 52.41, lon: 16.93},
		{name: "lyon", lat: 45.76, lon: 4.84},
		{name: "turin", lat: 45.07, lon: 7.69},
		{name: "leipzig", lat: 51.42, lon: 12.23},
		{name: "gdansk", lat: 54.35, lon: 18.65},
		{name: "graz", lat: 47.07, lon: 15.44},
		{name: "bilbao", lat: 43.26, lon: -2.93},
		{name: "malmo", lat: 55.60, lon: 13.00},
		{name: "cork", lat: 51.90, lon: -8.47},
		{name: "brno", lat: 49.20, lon: 16.61},
	}
	places := []string{"dock", "sorter", "gate", "yard", "press"}
	s := all[n%len(all)]
	if n >= len(all) {
		s.name = fmt.Sprintf("%s%d", s.name, n/len(all)+1)
	}
	s.number, s.place = n, places[row/8%len(places)]
	return &s
}

// kindOf is a make of board.
type kindOf struct {
	model  string
	cores  int
	memory float64 // bytes
	watts  float64 // at rest
}

func kinds() []kindOf {
	return []kindOf{
		{"NVIDIA Jetson Orin Nano Developer Kit", 6, 8 << 30, 5.2}, {"NVIDIA Jetson Orin NX 16GB", 8, 16 << 30, 7.4}, {"NVIDIA Jetson Xavier NX", 6, 8 << 30, 6.1},
	}
}

// feeling is how a board is.
type feeling struct {
	kind     kindOf
	names    []string // series
	heat     float64  // of the chip, °C
	load     float64  // percent
	phase    float64  // of its day
	told     map[string]string
	lapse    time.Time // when a flapping connection drops next
	nextGap  time.Time
	silent   bool
	suddenly time.Time // when the trouble begins
}

// equip gives a board what it is.
func (b *board) equip() {
	s := &b.state
	s.kind = kinds()[b.rnd.IntN(len(kinds()))]
	s.heat, s.load, s.phase = 44+8*b.rnd.Float64(), 20+40*b.rnd.Float64(), 2*math.Pi*b.rnd.Float64()
	s.told = map[string]string{}
	b.release = []string{"1.8.2", "1.8.2", "1.8.2", "1.8.1"}[b.rnd.IntN(4)]
	if b.f.cfg.Sick {
		switch {
		case b.f.cfg.Sites > 1 && b.site.number == b.f.cfg.Sites-1:
			b.trouble = TroubleUplink
		case b.number%sickEvery == 3:
			all := troubles()
			b.trouble = all[b.number/sickEvery%len(all)]
		}
	}
	model := "parcels@4"
	if b.trouble == TroubleOld {
		b.release, model = "1.6.0", "parcels@2"
	}
	for i := range 1 + b.rnd.IntN(2) {
		b.cameras = append(b.cameras, camera{name: []string{"belt", "gate"}[i], model: model, engine: "tensorrt/int8", frame: uint64(b.rnd.IntN(1 << 20))})
	}
	b.facts = map[string]string{
		"model": s.kind.model, "os": "Ubuntu 22.04.5 LTS", "arch": "arm64", "kernel": "5.15.148-tegra", "l4t": "36.4.4", "site": b.site.name,
		"serial": fmt.Sprintf("14231%08d", b.rnd.IntN(1e8)),
	}
	s.names = []string{
		"cpu.load_percent", "gpu.load_percent", "memory.used_percent", "memory.available_bytes", "thermal.cpu_celsius", "thermal.gpu_celsius",
		"thermal.tj_celsius", "power.total_watts", "power.vdd_cpu_gpu_cv_watts", "fan.1_rpm", "throttle.active_count", "disk.root_used_percent",
		"load.1m", "net.uplink_receive_bytes_per_second", "infer.belt_frames_per_second",
	}
	if b.f.cfg.Numbered {
		s.names = append(s.names, "sim.batch_count")
	}
}

// wake is the first moment of a board.
func (b *board) wake(now time.Time) {
	s := &b.state
	s.suddenly = now.Add(b.f.cfg.Onset + time.Duration(b.rnd.Int64N(int64(b.f.cfg.Onset)+1)))
	s.lapse, s.nextGap = now.Add(40*time.Second), now.Add(time.Minute)
	if b.f.cfg.Every < 0 {
		return // an idle fleet says nothing of itself
	}
	b.say(now, "worker", "ok", schema.SeverityInfo, "the inference worker runs")
	for i := range b.cameras {
		c := &b.cameras[i]
		b.say(now, "camera/"+c.name, "running", schema.SeverityInfo, "camera "+c.name+" delivers")
		c.next = now.Add(b.soon(b.f.cfg.EventEvery))
		c.picture = now.Add(b.soon(b.f.cfg.PictureEvery))
	}
}

// soon gives a wait that is random around a mean; none for what never comes.
func (b *board) soon(mean time.Duration) time.Duration {
	if mean < 0 {
		return 1 << 50
	}
	return time.Duration(min(b.rnd.ExpFloat64(), 5) * float64(mean))
}

// say makes a report, where it is another than the last on its subject.
func (b *board) say(now time.Time, subject, state string, sev schema.Severity, text string) {
	if b.state.told[subject] == state {
		return
	}
	b.state.told[subject] = state
	b.keep(schema.ClassAlarm, schema.Record{Kind: schema.KindReport, Report: &schema.Report{Subject: subject, State: state, Severity: sev, Text: text}}, now, nil)
}

// uplink tells whether the site has a way to the fleet.
func (b *board) uplink(now time.Time) bool {
	since := now.Sub(b.f.began) - outageFirst
	return b.trouble != TroubleUplink || since < 0 || since%outageEvery >= outageFor
}

// pass lets a second go by.
func (b *board) pass(now time.Time) {
	s := &b.state
	switch {
	case b.line == nil:
	case !b.uplink(now):
		b.hang("the site's uplink is down")
	case !b.greeted && now.Sub(b.since) > helloTimeout:
		b.hang("hello was not answered")
	case b.trouble == TroubleFlaps && now.After(s.lapse):
		s.lapse = now.Add(time.Duration(15+b.rnd.IntN(30)) * time.Second)
		b.hang("it flaps")
	}
	if b.f.cfg.Every < 0 {
		return
	}
	if now.After(s.suddenly) {
		b.suffer(now)
	}
	for i := range b.cameras {
		b.look(&b.cameras[i], now)
	}
}

// suffer lets the trouble be seen.
func (b *board) suffer(now time.Time) {
	s := &b.state
	switch b.trouble {
	case TroubleCamera:
		c := &b.cameras[len(b.cameras)-1]
		c.dead = true
		b.say(now, "camera/"+c.name, "failed", schema.SeverityAlarm, "camera "+c.name+": no frame for 30 s; is its cable in?")
	case TroubleHot:
		if s.heat > 93 {
			b.say(now, "throttle", "throttling", schema.SeverityWarn, fmt.Sprintf("the chip is at %.0f °C and slows down; is its fan clean?", s.heat))
		}
	case TroubleDisk:
		b.say(now, "spool", "full", schema.SeverityWarn, "the disk is full: the oldest samples are given up")
		if now.After(s.nextGap) && len(b.out.list[schema.ClassMetric]) == 0 {
			s.nextGap = now.Add(2 * time.Minute)
			first := b.out.last[schema.ClassMetric] + 1
			b.out.last[schema.ClassMetric] += uint64(3 + b.rnd.IntN(20))
			b.keep(schema.ClassAlarm, schema.Record{Kind: schema.KindGap, Gap: &schema.Gap{
				Class: schema.ClassMetric, Epoch: b.out.epoch[schema.ClassMetric], First: first, Last: b.out.last[schema.ClassMetric], Reason: schema.ReasonDiskFull,
			}}, now, nil)
		}
	case TroubleSilent:
		s.silent = true
	}
}

// sense makes one batch of samples.
func (b *board) sense(now time.Time) {
	s := &b.state
	if s.silent {
		return
	}
	b.batches++
	day := math.Sin(2*math.Pi*float64(now.Unix()%600)/600 + s.phase) // a day of ten minutes, so that somebody sees it
	s.load = min(max(s.load+4*b.rnd.NormFloat64()+(45+25*day-s.load)*0.1, 2), 98)
	goal := 42 + 0.25*s.load
	if b.trouble == TroubleHot && now.After(s.suddenly) {
		goal = 97
	}
	s.heat += (goal - s.heat) * 0.15
	throttled := 0.0
	if s.heat > 93 {
		throttled = 1
	}
	watts := s.kind.watts * (1 + s.load/60)
	used := 35 + s.load/4
	fps := 29.8 - 12*throttled
	if len(b.cameras) > 0 && b.cameras[0].dead {
		fps = 0
	}
	v := []float64{
		s.load, min(s.load*1.3, 99), used, s.kind.memory * (1 - used/100), s.heat - 2, s.heat - 1,
		s.heat, watts, watts * 0.6, 1800 + 30*(s.heat-40), throttled, 62 + float64(b.number%20),
		s.load / 100 * float64(s.kind.cores), 4000 + 200*s.load, fps,
	}
	if b.f.cfg.Numbered {
		v = append(v, float64(b.batches))
	}
	for i := range v[:len(s.names)] {
		v[i] = math.Round(v[i]*100) / 100
	}
	x := &schema.Samples{Series: s.names, Value: v}
	if b.trouble == TroubleSensor && now.After(s.suddenly) {
		x.Quality = make([]schema.Quality, len(v))
		x.Quality[8], v[8] = schema.QualityError, 0
	}
	b.keep(schema.ClassMetric, schema.Record{Kind: schema.KindSamples, Samples: x}, now, nil)
}
