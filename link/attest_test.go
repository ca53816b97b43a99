// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fulmar/link/linktest"
	"fulmar/schema"
)

// proofs notes what comes on the channel of attestations.
type proofs struct {
	mu   sync.Mutex
	seen []string
}

func (p *proofs) take(t schema.Topic, payload []byte) error {
	if t.Channel == schema.ChanAttest {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen = append(p.seen, string(payload))
	}
	return nil
}

func (p *proofs) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// TestAttestation: a nonce is answered once in its connection, and a later word of
// the fleet may bring another; of two that wait the newer one is answered.
func TestAttestation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p proofs
		b := linktest.New(t)
		b.Hello, b.Take = &schema.HelloAck{Attest: []byte("n1")}, p.take
		cfg := config(b)
		cfg.Attest = func(_ context.Context, nonce []byte) ([]byte, error) {
			time.Sleep(600 * time.Millisecond) // a slow TPM
			return append([]byte("proof of "), nonce...), nil
		}
		s := start(t, cfg, newMemory())
		time.Sleep(time.Minute)
		synctest.Wait()
		conn := s.conn
		for _, n := range []string{"n2", "n3", "n4"} {
			payload, err := schema.Encode(&schema.HelloAck{V: schema.Version, Conn: conn, Attest: []byte(n)})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Publish("f/v1/default/dock-1/hello/ack", payload); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if got, want := p.all(), []string{"proof of n1", "proof of n2", "proof of n4"}; !slices.Equal(got, want) {
			t.Errorf("the fleet got %q, wants %q", got, want)
		}
	})
}

// TestAttestationNeverHoldsUp: one that hangs or fails costs no record, no
// acknowledgement and no connection.
func TestAttestationNeverHoldsUp(t *testing.T) {
	for name, attest := range map[string]func(context.Context) error{
		"hangs": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"fails": func(context.Context) error { return errors.New("the TPM is in failure mode") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p proofs
				b, m := linktest.New(t), newMemory()
				b.Hello, b.Take = &schema.HelloAck{Attest: []byte("n")}, p.take
				var asked atomic.Int64
				cfg := config(b)
				cfg.Attest = func(ctx context.Context, _ []byte) ([]byte, error) { asked.Add(1); return nil, attest(ctx) }
				s := start(t, cfg, m)
				time.Sleep(31 * time.Second)
				for i := range 50 {
					m.add(schema.ClassAlarm, record(t))
					time.Sleep(100 * time.Millisecond)
					if left := m.left(); left > 0 {
						t.Fatalf("record %d is not acknowledged after 100 ms: %+v", i, s.Status())
					}
				}
				b.SetCut(true)
				time.Sleep(time.Second)
				b.SetCut(false)
				time.Sleep(5 * time.Minute)
				if st := s.Status(); !st.Up() || asked.Load() != 2 || len(p.all()) != 0 {
					t.Errorf("asked %d times, %q arrived, %+v", asked.Load(), p.all(), st)
				}
			})
		})
	}
}

// TestNoAttestor: a board that proves nothing is asked, and no answer is sent.
func TestNoAttestor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p proofs
		b, m := linktest.New(t), newMemory()
		b.Hello, b.Take = &schema.HelloAck{Attest: []byte("n")}, p.take
		s := start(t, config(b), m)
		m.add(schema.ClassAlarm, record(t))
		time.Sleep(time.Minute)
		if m.left() != 0 || !s.Status().Up() || len(p.all()) != 0 {
			t.Error(fmt.Sprint(m.left(), s.Status(), p.all()))
		}
	})
}
