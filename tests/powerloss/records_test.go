// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package powerloss_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"fulmar/schema"
	"fulmar/storage"
)

// profile is how the spool of a life is set up and worked with.
type profile struct {
	name    string
	tight   bool // small quotas: events, metrics and snapshots are evicted, metrics thinned
	mount   string
	noSync  bool
	push    bool // written pages are pushed to the disk at odd times, without a flush
	kill    bool // sessions end with a kill, too
	session time.Duration
}

var profiles = []profile{
	{name: "roomy", session: time.Second, kill: true},
	{name: "tight", session: time.Second, tight: true, kill: true, push: true},
	{name: "unordered", session: 800 * time.Millisecond, mount: "data=writeback,noauto_da_alloc,commit=1", push: true},
	{name: "starts", session: 60 * time.Millisecond, kill: true},
	{name: "journalled", session: 600 * time.Millisecond, tight: true, mount: "data=journal"},
}

var control = profile{name: "control", noSync: true, push: true, session: 500 * time.Millisecond}

func profileNamed(name string) profile {
	for _, p := range append(profiles, control) {
		if p.name == name {
			return p
		}
	}
	panic("no profile " + name)
}

func (p profile) config(dir string) storage.Config {
	cfg := storage.Config{Dir: dir, Clock: schema.NewClock(7, time.Hour), NoSync: p.noSync}
	for i := range cfg.Classes {
		cfg.Classes[i] = storage.ClassConfig{SegmentBytes: 64 << 10, QuotaBytes: 8 << 20, Linger: time.Millisecond}
		if p.tight && schema.Class(i) != schema.ClassAlarm {
			cfg.Classes[i].QuotaBytes = 256 << 10
		}
	}
	cfg.Classes[schema.ClassAlarm].Linger = -1
	cfg.Classes[schema.ClassMetric].Linger = 30 * time.Millisecond
	return cfg
}

// A record of the tests is told by a number i: who made it (upper bits) and the
// how many-th of his it is. i decides each byte of its payload.
const makerShift = 24

func id(session, maker, n int) uint64 {
	return uint64(session)<<(makerShift+8) | uint64(maker)<<makerShift | uint64(n)
}

// payload gives the record of number i. Metrics are samples, so that they can be
// thinned; the others begin with a byte that no encoded record begins with.
func payload(c schema.Class, i uint64) []byte {
	rng := rand.New(rand.NewPCG(i, uint64(c)))
	if c == schema.ClassMetric {
		n := i & (1<<makerShift - 1)
		rec := schema.Record{
			Kind: schema.KindSamples,
			Time: schema.Time{Boot: i>>makerShift + 1, Mono: int64(n) * int64(time.Second), Wall: int64(i)},
			Samples: &schema.Samples{
				Series: []string{"test.a_percent", "test.b_celsius", "test.c_bytes"},
				Value:  []float64{rng.Float64(), rng.NormFloat64(), float64(n)},
			},
		}
		b, err := schema.EncodeRecord(&rec)
		if err != nil {
			panic(err)
		}
		return b
	}
	b := make([]byte, 20+rng.IntN(400))
	b[0], b[1] = 0xff, byte(c)
	binary.BigEndian.PutUint64(b[2:], i)
	for k := 10; k < len(b); k++ {
		b[k] = byte(rng.Uint32())
	}
	return b
}

// What a payload that was read can be.
const (
	isOurs = iota
	isGap
	isSummary
	isWrong
)

// identify tells what a payload is, and the number of one of ours.
func identify(c schema.Class, p []byte) (kind int, i uint64, gap schema.Gap) {
	if c != schema.ClassMetric && len(p) >= 20 && p[0] == 0xff {
		i = binary.BigEndian.Uint64(p[2:])
	} else {
		rec, err := schema.DecodeRecord(p)
		switch {
		case err != nil:
			return isWrong, 0, gap
		case c == schema.ClassAlarm && rec.Gap != nil:
			return isGap, 0, *rec.Gap
		case c != schema.ClassMetric || rec.Samples == nil:
			return isWrong, 0, gap
		case rec.Samples.Over != nil:
			return isSummary, 0, gap
		}
		i = uint64(rec.Time.Wall)
	}
	if !bytes.Equal(p, payload(c, i)) {
		return isWrong, i, gap
	}
	return isOurs, i, gap
}
