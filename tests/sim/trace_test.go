// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"fulmar/schema"
)

// fates draws what happens to messages. A draw depends on the seed, the message and
// how often it came by, not on which goroutine asks first.
type fates struct {
	seed uint64
	mu   sync.Mutex
	came map[uint64]uint64
}

func newFates(seed uint64) *fates { return &fates{seed: seed, came: map[uint64]uint64{}} }

func (f *fates) draw(n int, what, topic string, payload []byte) int {
	h := fnv.New64a()
	for _, s := range []string{what, topic} {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{0})
	}
	_, _ = fmt.Fprint(h, number(topic, payload))
	key := h.Sum64()
	f.mu.Lock()
	f.came[key]++
	times := f.came[key]
	f.mu.Unlock()
	return rand.New(rand.NewPCG(f.seed^key, times)).IntN(n)
}

// number names a message among those of its topic. Its bytes would not do: they hold
// times and random ids.
func number(topic string, payload []byte) uint64 {
	tp, err := schema.ParseTopic(topic)
	if err != nil {
		return 0
	}
	var m schema.Message
	var c schema.Chunk
	switch tp.Channel {
	case schema.ChanStream, schema.ChanEvent:
		if schema.Decode(payload, &m) == nil {
			return m.Records[0].Seq
		}
	case schema.ChanBlob:
		if schema.Decode(payload, &c) == nil {
			return uint64(c.Offset)
		}
	}
	return 0
}

// trace follows what boards send: a hash to compare two runs of a seed by, and whether
// numbers rise as they must.
type trace struct {
	mu     sync.Mutex
	begin  time.Time
	sum    uint64
	count  int
	epochs map[uint64]int // by the order in which they were seen: they are random
	last   map[stream]uint64
	to     io.Writer // all of it, line by line; nil: nowhere
}

// stream is what keeps its order within a connection.
type stream struct {
	board  string
	class  schema.Class
	epoch  uint64
	replay bool
}

func newTrace() *trace {
	return &trace{begin: time.Now(), epochs: map[uint64]int{}, last: map[stream]uint64{}}
}

func (tr *trace) note(what ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.add(what...)
}

func (tr *trace) add(what ...any) {
	h := fnv.New64a()
	_, _ = fmt.Fprintln(h, append([]any{time.Since(tr.begin)}, what...)...)
	tr.sum, tr.count = tr.sum+h.Sum64(), tr.count+1 // a sum: the order within an instant does not matter
	if tr.to != nil {
		_, _ = fmt.Fprintln(tr.to, append([]any{time.Since(tr.begin)}, what...)...)
	}
}

// message notes one of a board.
func (tr *trace) message(t *testing.T, tp schema.Topic, payload []byte) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var m schema.Message
	switch tp.Channel {
	case schema.ChanHello:
		for s := range tr.last { // a new connection begins anew
			if s.board == tp.Board {
				delete(tr.last, s)
			}
		}
	case schema.ChanStream, schema.ChanEvent:
		if err := schema.Decode(payload, &m); err != nil {
			t.Errorf("message on %s: %v", tp, err)
			return
		}
		s := stream{tp.Board, m.Class, m.Epoch, m.Replay}
		// What three connections ended at is held back, and its records come later, alone.
		alone := m.Replay && len(m.Records) == 1
		for _, r := range m.Records {
			if r.Seq <= tr.last[s] && !alone {
				t.Errorf("%s: %s %d came after %d in one connection", tp.Board, m.Class, r.Seq, tr.last[s])
			}
			tr.last[s] = max(tr.last[s], r.Seq)
		}
		if _, ok := tr.epochs[m.Epoch]; !ok {
			tr.epochs[m.Epoch] = len(tr.epochs)
		}
		tr.add(tp.Board, m.Class, tr.epochs[m.Epoch], m.Replay, m.Records[0].Seq, len(m.Records))
		return
	}
	tr.add(tp.Board, tp.Channel, tp.Tail)
}
