// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"fulmar/fleet/registry"
	"fulmar/fleet/registry/proofs"
	"fulmar/schema"
)

const (
	// Fresh is how old the newest good attestation of a board may be.
	Fresh = 24 * time.Hour
	// Patience is how long an answer may take before the board counts as silent: a
	// discrete TPM signs within a second, and its commands end after a minute.
	Patience = 10 * time.Minute
	// maxBoards bounds the boards remembered: as many as the registry takes.
	maxBoards = 50_000
	// writeEvery is how often refusals of one board for one reason are written down:
	// a board that sends nothing else costs a row a minute.
	writeEvery = time.Minute
)

// Keys are the attestation keys on record (fleet/registry).
type Keys interface {
	// AK gives the public area of a board's attestation key, and how its TPM is known.
	AK(ctx context.Context, tenant, board string) (area []byte, trust string, err error)
}

// Book is where proofs are kept (fleet/registry/proofs).
type Book interface {
	Get(ctx context.Context, tenant, board string) (proofs.Proof, error)
	Keep(ctx context.Context, tenant, board string, p proofs.Proof) error
	// Refuse also writes into the audit log why the newest is not believed.
	Refuse(ctx context.Context, tenant, board string, p proofs.Proof, say string) error
}

// Stats are counters since the start.
type Stats struct {
	Asked   uint64 // questions
	Good    uint64 // attestations that were believed
	Refused uint64 // and that were not
	Unasked uint64 // that nobody had asked for: repeated by the link, or out of place
	Failed  uint64 // questions and answers lost to a fault of the registry
}

// Checker asks and checks. Safe for concurrent use.
type Checker struct {
	keys Keys
	book Book
	now  func() time.Time
	log  *slog.Logger
	tell func(tenant, board string, p proofs.Proof, why string) // see Demand; nil: nobody hears

	mu     sync.Mutex
	boards map[key]*seen

	n struct{ asked, good, refused, unasked, failed atomic.Uint64 }
}

type key struct{ tenant, board string }

// seen is what is remembered of a board's newest connection.
type seen struct {
	said                      // in its hello
	nonce []byte              // of the open question; nil: there is none
	owes  time.Time           // since when it owes an answer, over connections; zero: it does not
	fresh time.Time           // nothing is asked before
	asked time.Time           // when nonce was made
	want  bool                // a proof of now is demanded, and not asked for yet
	now   bool                // the open question is such a one
	wrote map[string]writeOff // by reason
}

// said is what a hello tells of the board.
type said struct {
	conn    uint64
	boot    uint64
	release string
}

// writeOff is when a reason was last written down, and how many came since.
type writeOff struct {
	at    time.Time
	since uint64
}

// New makes a Checker.
func New(keys Keys, book Book, log *slog.Logger) *Checker {
	return &Checker{keys: keys, book: book, now: time.Now, log: log, boards: map[key]*seen{}}
}

// Stats tells the counters.
func (c *Checker) Stats() Stats {
	return Stats{
		Asked: c.n.asked.Load(), Good: c.n.good.Load(), Refused: c.n.refused.Load(),
		Unasked: c.n.unasked.Load(), Failed: c.n.failed.Load(),
	}
}

// Hello notes that a board began a connection. A question of an earlier one is void.
func (c *Checker) Hello(tenant, board string, h *schema.Hello) {
	k := key{tenant, board}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.boards[k]
	if s == nil {
		for old := range c.boards { // any: one that still speaks is noted again at its next hello
			if len(c.boards) < maxBoards {
				break
			}
			delete(c.boards, old)
		}
		s = &seen{wrote: map[string]writeOff{}}
		c.boards[k] = s
	}
	s.said = said{h.Conn, h.Now.Boot, h.Release}
	s.want = s.want || s.now
	s.nonce, s.fresh, s.now = nil, time.Time{}, false
}

// Ask gives the nonce to ask a connection with, nil where no attestation is due: of
// a board whose trust is no TPM's, or whose newest good one is fresh and of the boot
// and release that its hello told. It may be called again while a connection lasts.
func (c *Checker) Ask(ctx context.Context, tenant, board string, conn uint64) []byte {
	k := key{tenant, board}
	now := c.now()
	c.mu.Lock()
	s := c.boards[k]
	if s == nil || s.conn != conn || now.Before(s.fresh) && !s.want || s.nonce != nil && now.Sub(s.owes) < Patience {
		c.mu.Unlock()
		return nil
	}
	told := s.said
	c.mu.Unlock()

	again, err := c.due(ctx, k, told, now)
	if err != nil {
		c.failed(k, "not asked for an attestation", err)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s = c.boards[k]; s == nil || s.said != told {
		return nil // a newer connection took its place meanwhile
	}
	if again.After(now) && !s.want {
		s.fresh, s.owes = again, time.Time{}
		return nil
	}
	s.asked, s.now, s.want = now, s.want, false
	s.nonce = make([]byte, schema.MaxAttestNonce)
	_, _ = rand.Read(s.nonce) // never fails: crypto/rand ends the process instead
	if s.owes.IsZero() {
		s.owes = now
	}
	c.n.asked.Add(1)
	return s.nonce
}

// due tells when an attestation is due; now or earlier: at once.
func (c *Checker) due(ctx context.Context, k key, told said, now time.Time) (time.Time, error) {
	area, trust, err := c.keys.AK(ctx, k.tenant, k.board)
	if errors.Is(err, registry.ErrUnknown) || err == nil && (trust == schema.TrustSoftware || len(area) == 0) {
		return now.Add(Fresh), nil
	}
	if err != nil {
		return now, err
	}
	p, err := c.book.Get(ctx, k.tenant, k.board)
	if err != nil {
		return now, err
	}
	r, err := Report(p)
	if err != nil || p.AK != hash(area) || p.Why != "" || p.Boot != told.boot || r.Release != told.release {
		return now, nil
	}
	return p.Good.Add(Fresh), nil
}

// Silent lists the boards of a tenant that were asked and did not answer in time,
// with the moment since when.
func (c *Checker) Silent(tenant string) map[string]time.Time {
	now, out := c.now(), map[string]time.Time{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, s := range c.boards {
		if k.tenant == tenant && !s.owes.IsZero() && now.Sub(s.owes) >= Patience {
			out[k.board] = s.owes
		}
	}
	return out
}

// Answer takes what a board sent on schema.ChanAttest in a connection. It has no
// error: whatever becomes of it, the link goes on.
func (c *Checker) Answer(ctx context.Context, tenant, board string, conn uint64, payload []byte) {
	k := key{tenant, board}
	a := new(schema.Attestation)
	if err := schema.Decode(payload, a); err != nil {
		c.refuse(ctx, k, WhyMalformed, err.Error())
		return
	}
	told, demanded, asked, right := c.take(k, conn, a.Nonce)
	switch {
	case !asked:
		c.n.unasked.Add(1)
		c.log.Debug("attestation not asked for", "tenant", tenant, "board", board)
		return
	case !right:
		c.refuse(ctx, k, WhyNonce, "")
		return
	}
	area, _, err := c.keys.AK(ctx, tenant, board)
	if err != nil {
		c.failed(k, "attestation not checked", err)
		return
	}
	old, err := c.book.Get(ctx, tenant, board)
	if err != nil {
		c.failed(k, "attestation not checked", err)
		return
	}
	p, why, err := check(old, area, told, a, c.now())
	if why != "" {
		c.refuse(ctx, k, why, err.Error())
		c.outcome(k, demanded, old, why)
		return
	}
	if err := c.book.Keep(ctx, tenant, board, p); err != nil {
		c.failed(k, "attestation not kept", err)
		return
	}
	c.n.good.Add(1)
	c.believed(k, told, p.Good.Add(Fresh))
	c.log.Info("attestation good", "tenant", tenant, "board", board, "level", p.Level, "boots", p.Boots())
	c.outcome(k, demanded, p, "")
}

// take ends the open question of a connection if the nonce is its own. Another nonce
// leaves it open: the link may have repeated an earlier answer.
func (c *Checker) take(k key, conn uint64, nonce []byte) (told said, demanded, asked, right bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.boards[k]
	if s == nil || s.nonce == nil || s.conn != conn {
		return said{}, false, false, false
	}
	if subtle.ConstantTimeCompare(s.nonce, nonce) != 1 {
		return said{}, false, true, false
	}
	demanded = s.now
	s.nonce, s.owes, s.now = nil, time.Time{}, false
	return s.said, demanded, true, true
}

// believed notes that nothing is to be asked for a while.
func (c *Checker) believed(k key, told said, fresh time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.boards[k]; s != nil && s.said == told {
		s.fresh = fresh
		clear(s.wrote)
	}
}

// refuse counts what is not believed and writes it down, each reason once a minute.
func (c *Checker) refuse(ctx context.Context, k key, why, detail string) {
	c.n.refused.Add(1)
	now := c.now()
	c.mu.Lock()
	n := uint64(1)
	if s := c.boards[k]; s != nil {
		w, known := s.wrote[why]
		w.since++
		if known && now.Sub(w.at) < writeEvery {
			s.wrote[why] = w
			c.mu.Unlock()
			return
		}
		n = w.since
		s.wrote[why] = writeOff{at: now}
	}
	c.mu.Unlock()
	c.log.Warn("attestation not believed", "tenant", k.tenant, "board", k.board, "why", why, "detail", detail)
	p, err := c.book.Get(ctx, k.tenant, k.board)
	if err == nil {
		p.Refused += n
		p.RefusedAt, p.Why = now, why
		err = c.book.Refuse(ctx, k.tenant, k.board, p, Say(why)+" "+detail)
	}
	if err != nil {
		c.failed(k, "refused attestation not written down", err)
	}
}

func (c *Checker) failed(k key, what string, err error) {
	c.n.failed.Add(1)
	c.log.Error(what, "tenant", k.tenant, "board", k.board, "error", err.Error())
}
