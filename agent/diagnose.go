// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"runtime/pprof"
	"sync"

	"fulmar/agent/config"
)

// tailSize is how much of the log is kept in memory for a diagnostics archive: the last
// few hundred lines, at a cost that a small board does not feel.
const tailSize = 64 << 10

// Tail keeps the end of what is written to it: beside standard error, the board's log. It
// is safe for use by many goroutines.
type Tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write takes lines; it never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	p = p[max(0, n-tailSize):]
	if over := len(t.buf) + len(p) - tailSize; over > 0 {
		// Half at a time, so that not each line moves all.
		t.buf = t.buf[:copy(t.buf, t.buf[min(len(t.buf), max(over, tailSize/2)):])]
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// Bytes are the whole lines that are kept.
func (t *Tail) Bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := bytes.Clone(t.buf)
	if i := bytes.IndexByte(b, '\n'); i >= 0 && len(b) > tailSize/2-1 {
		b = b[i+1:] // its first line may be cut
	}
	return b
}

// diagnose gives what support asks for. Secrets lie in files of their own, which are not
// among it; the config names them.
func (a *Agent) diagnose(_ context.Context, add func(name string, data []byte)) {
	js := func(name string, v any) {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			b = []byte("not shown: " + err.Error())
		}
		add(name, append(b, '\n'))
	}
	js("health.json", a.Health())
	js("facts.json", map[string]any{"release": a.opt.Release, "facts": a.facts, "now": a.clock.Now()})
	js("spool.json", a.spool.Stats())
	js("schedule.json", a.scheduler.Stats())
	js("commands.json", a.commands.Stats())
	a.status.mu.Lock()
	w := a.status.worker
	a.status.mu.Unlock()
	js("worker.json", w)
	if a.opt.ConfigPath != "" {
		b, err := config.Show(a.opt.ConfigPath)
		if err != nil {
			b = []byte("# not shown: " + err.Error() + "\n")
		}
		add("config.yaml", b)
	}
	var stacks bytes.Buffer
	if p := pprof.Lookup("goroutine"); p != nil {
		_ = p.WriteTo(&stacks, 1)
	}
	add("goroutines.txt", stacks.Bytes())
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	js("memory.json", map[string]uint64{"heap_bytes": m.HeapAlloc, "sys_bytes": m.Sys, "stacks_bytes": m.StackInuse, "collections": uint64(m.NumGC)})
	if a.opt.Tail != nil {
		add("log.txt", a.opt.Tail.Bytes())
	}
}
