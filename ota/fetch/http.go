// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"fulmar/internal/merkle"
	"fulmar/ota/fetch/timers"
	"fulmar/ota/release"
)

const (
	// mostRun is how many pieces are asked for at a time: 1 MiB, so that another source can
	// take over what a slow one has not got to.
	mostRun = 16
	// leastStall is how long a server may say nothing, at least.
	leastStall = 10 * time.Second
	mostStall  = time.Minute
)

// HTTP brings objects from a server that has them under URL/objects/TREE, with their
// leaves: the fleet, or a board of the same site. What it sends is proven, so it may be
// anybody.
type HTTP struct {
	// URL is the server's, without a slash at its end.
	URL string
	// Client goes there; with the fleet it has the board's certificate. It needs no timeout.
	Client *http.Client
}

// Name names it.
func (h *HTTP) Name() string { return "http " + h.URL }

// Bring brings what it can.
func (h *HTTP) Bring(ctx context.Context, j *Job) error {
	t := &timers.Estimate{First: leastStall, Least: leastStall, Most: mostStall}
	if !j.Known() {
		err := h.get(ctx, j, "/leaves", 0, int64(j.Pieces())*merkle.Size, t, func(r io.Reader) error { return j.Learn(r) })
		if err != nil {
			return err
		}
	}
	buf := make([]byte, release.Piece)
	for {
		select {
		case <-j.Over():
			return nil
		default:
		}
		run := j.Claim(mostRun, true)
		if len(run) == 0 { // others are about to bring the rest
			timer := time.NewTimer(linePause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-j.Over():
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		last := run[len(run)-1]
		from := int64(run[0]) * release.Piece
		err := h.get(ctx, j, "", from, int64(last)*release.Piece+int64(j.PieceSize(last))-from, t, func(r io.Reader) error {
			for _, i := range run {
				if err := j.Allow(ctx, j.PieceSize(i)); err != nil {
					return err
				}
				data := buf[:j.PieceSize(i)]
				if _, err := io.ReadFull(r, data); err != nil {
					return fmt.Errorf("piece %d: %w", i, err)
				}
				if _, err := j.PutKnown(i, data); err != nil {
					return err
				}
			}
			return nil
		})
		j.Yield(run...)
		if err != nil {
			return err
		}
	}
}

// get asks for bytes of an object or its leaves, and gives exactly those to read.
func (h *HTTP) get(ctx context.Context, j *Job, what string, from, n int64, t *timers.Estimate, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL+"/objects/"+j.Tree.String()+what, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+n-1))
	w := time.AfterFunc(t.Timeout(), func() { cancel(errStalled) })
	defer w.Stop()
	resp, err := h.Client.Do(r)
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrNotHere, resp.Status)
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", ErrRefused, resp.Status)
	case resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/", from, from+n-1)):
	case resp.StatusCode == http.StatusOK && from == 0: // all of it, and no more of that is read than was asked for
	default:
		return fmt.Errorf("%s answers %s with range %.60q to bytes %d to %d", h.URL, resp.Status, resp.Header.Get("Content-Range"), from, from+n-1)
	}
	err = read(&watched{r: io.LimitReader(resp.Body, n), w: w, t: t})
	if err != nil && context.Cause(ctx) != nil && !errors.Is(err, ErrLied) {
		err = errors.Join(err, context.Cause(ctx))
	}
	return err
}

// errStalled: a server says nothing.
var errStalled = errors.New("nothing came for too long")

// watched reads as long as something comes.
type watched struct {
	r io.Reader
	w *time.Timer
	t *timers.Estimate
}

func (w *watched) Read(p []byte) (int, error) {
	begun := time.Now()
	w.w.Reset(w.t.Timeout()) // what lies between two reads is this board's own rate
	n, err := w.r.Read(p)
	if n > 0 {
		w.t.Take(time.Since(begun))
	}
	return n, err
}
