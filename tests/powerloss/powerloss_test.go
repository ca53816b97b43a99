// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package powerloss_test

import (
	"crypto/rand"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// seed is the run's: given, or a new one.
func seed(t *testing.T) uint64 {
	t.Helper()
	if s := os.Getenv(seedEnv); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return binary.LittleEndian.Uint64(b[:]) >> 16
}

// TestPowerLoss is the proof; see the package comment.
func TestPowerLoss(t *testing.T) {
	points, sessions := 300, 4
	if os.Getenv("FULMAR_SOAK") != "" {
		points, sessions = 1000, 8
	}
	s := newSite(t)
	seed := seed(t)
	t.Logf("%s=%d repeats the choices", seedEnv, seed)
	begin := time.Now()
	lives := make([]*life, len(profiles))
	var wg sync.WaitGroup
	two := make(chan struct{}, 2) // at a time
	for i, p := range profiles {
		wg.Go(func() {
			two <- struct{}{}
			defer func() { <-two }() // a Fatal ends this goroutine, and the others wait
			lives[i] = s.live(t, p.name, p, sessions, seed+uint64(i))
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, l := range lives {
		f, err := gather(l.notes(len(l.log)))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d operations, %d KB, %s", l.p.name, len(l.log), l.bytes>>10, f)
		reasons := map[string]int{}
		for _, g := range f.gaps {
			reasons[g.Reason.String()]++
		}
		t.Logf("%s: gaps taken: %v", l.p.name, reasons)
	}
	worked := time.Since(begin)
	begin = time.Now()
	o := s.lookAt(t, lives, points, seed, func(pt *point, wrong []string) {
		t.Errorf("%s, %s:\n\t%s\n\t%s", pt, pt.facts, strings.Join(wrong, "\n\t"), pt.save(t))
	})
	t.Logf("%d points, %d wrong, %d before the first durable record; lives took %.1f s, points %.1f s", o.points.Load(), o.bad.Load(), o.early.Load(), worked.Seconds(), time.Since(begin).Seconds())
	if o.points.Load() < int64(points) || o.early.Load() > int64(points)/3 {
		t.Errorf("%d points of %d, %d of them before the first durable record: the test proves little", o.points.Load(), points, o.early.Load())
	}
}

// TestControl: without fsync the same harness must find losses, or it is blind.
func TestControl(t *testing.T) {
	s := newSite(t)
	seed := seed(t)
	t.Logf("%s=%d", seedEnv, seed)
	l := s.live(t, "control", control, 2, seed)
	if t.Failed() {
		t.FailNow()
	}
	const points = 24
	var mu sync.Mutex
	gone := 0
	o := s.lookAt(t, []*life{l}, points, seed, func(pt *point, wrong []string) {
		mu.Lock()
		defer mu.Unlock()
		if gone == 0 {
			t.Logf("as it should, %s: %s", pt, wrong[0])
		}
		gone++
	})
	t.Logf("%d of %d points lost something, %d were before the first durable record", o.bad.Load(), o.points.Load(), o.early.Load())
	if o.bad.Load() < (points-o.early.Load())/2 || o.bad.Load() == 0 {
		t.Error("a spool that never syncs passes: the harness finds nothing")
	}
}
