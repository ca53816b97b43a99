// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"errors"
	"io"
	"net/http"
	"time"

	"fulmar/internal/merkle"
	"fulmar/ota/release"
)

const (
	// maxServed is how many answers are under way; more are asked to come back: with the
	// rates of boards and sites this is what bounds memory and files, not the speed.
	maxServed = 256
	// writeStall is how long a client may take for 64 KiB.
	writeStall = 30 * time.Second
	busyAfter  = "5" // seconds
)

// Handler serves objects over HTTP: GET /objects/{tree} with ranges, and its list of
// leaves, 32 bytes each, under /objects/{tree}/leaves. who tells which board asks, by its
// certificate. What goes this way counts at the same rates as pieces.
func (c *Caster) Handler(who func(*http.Request) (tenant, board string, err error)) http.Handler {
	mux := http.NewServeMux()
	slots := make(chan struct{}, maxServed)
	serve := func(content func(*object) io.ReadSeeker) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			tenant, name, err := who(r)
			if err != nil {
				http.Error(w, "objects are for boards of this fleet, by their certificate", http.StatusForbidden)
				return
			}
			key := target{boardKey: boardKey{tenant, name}}
			if key.tree, err = release.ParseHash(r.PathValue("tree")); err != nil {
				http.Error(w, "an object is named by 64 hex digits", http.StatusNotFound)
				return
			}
			// One answer for what is not there and what this board may not have.
			if _, ok := c.cfg.Entitled(tenant, name, key.tree); !ok {
				http.Error(w, "no assignment of this board names this object", http.StatusNotFound)
				return
			}
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			default:
				w.Header().Set("Retry-After", busyAfter)
				http.Error(w, "too many boards fetch at a time", http.StatusServiceUnavailable)
				return
			}
			c.serve(w, r, key, content)
		}
	}
	mux.HandleFunc("GET /objects/{tree}", serve(func(o *object) io.ReadSeeker { return io.NewSectionReader(o.data, 0, o.Size) }))
	mux.HandleFunc("GET /objects/{tree}/leaves", serve(func(o *object) io.ReadSeeker {
		return io.NewSectionReader(o.tree, 0, int64(o.Pieces())*merkle.Size)
	}))
	return mux
}

func (c *Caster) serve(w http.ResponseWriter, r *http.Request, key target, content func(*object) io.ReadSeeker) {
	o, err := c.cfg.Store.take(key.tree)
	switch {
	case errors.Is(err, ErrNone):
		w.Header().Set("Retry-After", "30")
		http.Error(w, "the fleet does not have this object yet", http.StatusServiceUnavailable)
		return
	case err != nil:
		c.cfg.Log.Error("object not served", "board", key.board, "err", err)
		http.Error(w, "the object cannot be read", http.StatusInternalServerError)
		return
	}
	defer o.use(-1)
	c.mu.Lock()
	b := c.board(key.boardKey)
	b.http++
	c.mu.Unlock()
	defer c.count(func(*Stats) { b.http-- })
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+key.tree.String()+`"`)
	w.Header().Set("Cache-Control", "private, immutable")
	http.ServeContent(&paced{ResponseWriter: w, r: r, c: c, b: b}, r, "", time.Time{}, content(o))
}

// paced writes at the rates of the board, its site and the fleet.
type paced struct {
	http.ResponseWriter
	r *http.Request
	c *Caster
	b *board
}

func (p *paced) Write(b []byte) (n int, err error) {
	control := http.NewResponseController(p.ResponseWriter)
	for len(b) > 0 {
		part := b[:min(len(b), release.Piece)]
		if err := p.sleep(len(part)); err != nil {
			return n, err
		}
		_ = control.SetWriteDeadline(time.Now().Add(writeStall)) // best effort
		m, err := p.ResponseWriter.Write(part)
		p.c.count(func(s *Stats) { s.Web += uint64(m) })
		n += m
		if err != nil {
			return n, err
		}
		b = b[len(part):]
	}
	return n, nil
}

func (p *paced) sleep(n int) error {
	ctx := p.r.Context()
	if err := errors.Join(p.b.rate.Sleep(ctx, n), p.c.fleet.Sleep(ctx, n)); err != nil || p.b.site == nil {
		return err
	}
	return p.b.site.Sleep(ctx, n)
}
