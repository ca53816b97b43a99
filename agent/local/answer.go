// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"fulmar/agent/local/updates"
	"fulmar/command"
	"fulmar/command/dispatch"
	"fulmar/schema/onboard"
)

// answer is what goes back.
type answer struct {
	w        http.ResponseWriter
	c        *http.ResponseController
	patience time.Duration // for a write of one of many lines
	lines    *json.Encoder
	started  bool
}

// json writes the only value of an answer.
func (a *answer) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	a.started = true
	a.w.Header().Set("Content-Type", "application/json")
	_, _ = a.w.Write(append(b, '\n')) // who has gone needs no answer
	return nil
}

// line writes one value of an answer with many, at once. An error: who asked has gone, or
// does not read.
func (a *answer) line(v any) error {
	if a.lines == nil {
		a.started = true
		a.w.Header().Set("Content-Type", "application/jsonl")
		a.lines = json.NewEncoder(a.w)
	}
	_ = a.c.SetWriteDeadline(time.Now().Add(a.patience))
	if err := a.lines.Encode(v); err != nil {
		return errGone
	}
	if err := a.c.Flush(); err != nil {
		return errGone
	}
	return nil
}

// errGone ends an answer that nobody reads.
var errGone = errors.New("who asked does not read the answer")

func (a *answer) refuse(no *refusal) {
	if a.started {
		return // the last line says nothing final: who reads knows that it was cut off
	}
	b, err := json.Marshal(no.Problem)
	if err != nil {
		return
	}
	a.w.Header().Set("Content-Type", "application/json")
	a.w.WriteHeader(no.status)
	_, _ = a.w.Write(append(b, '\n'))
}

// drainTime is how long who brings what was refused has to hear so: a socket that is closed
// with unread bytes takes the answer with it.
const drainTime = 5 * time.Second

// drain reads on after a refusal until the other side stops.
func (a *answer) drain(r io.Reader) {
	_ = a.c.Flush()
	_ = a.c.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.Copy(io.Discard, r)
}

// refusal is what is not done, with its status of HTTP.
type refusal struct {
	onboard.Problem
	status int
}

func (r *refusal) Error() string { return r.Text }

func refuse(status int, code, form string, args ...any) *refusal {
	return &refusal{onboard.Problem{Code: code, Text: fmt.Sprintf(form, args...)}, status}
}

// refusalOf puts an error of a part of the board into words and a status.
func refusalOf(err error) *refusal {
	var no *refusal
	var coded *command.Error
	var ofUpdates *updates.Refused
	switch {
	case errors.As(err, &ofUpdates):
		return refuse(ofUpdates.Status, ofUpdates.Code, "%s", ofUpdates.Text)
	case errors.As(err, &no):
		return no
	case errors.As(err, &coded):
		return refuse(http.StatusConflict, coded.Code, "%s", coded.Text)
	case errors.Is(err, dispatch.ErrNotKnown):
		return refuse(http.StatusNotFound, onboard.NotKnown, "%s", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return refuse(http.StatusServiceUnavailable, onboard.NotReady, "the board did not come to it in time: %s", err)
	}
	return refuse(http.StatusInternalServerError, onboard.Internal, "%s", err)
}

// read reads the only JSON value of a request; fields that are not known are refused, so
// that nobody believes to have said something that is not heard.
func read(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("more than one JSON value")
			if tooLarge(end) {
				err = end
			}
		}
	}
	switch {
	case err == nil:
		return nil
	case tooLarge(err):
		return refuse(http.StatusRequestEntityTooLarge, onboard.TooLarge, "a request of more than %d bytes", onboard.MaxBody)
	case errors.Is(err, io.EOF):
		return refuse(http.StatusBadRequest, onboard.BadRequest, "a request without a body")
	}
	return refuse(http.StatusBadRequest, onboard.BadRequest, "the request is not what is wanted here: %s", clip(err.Error()))
}

func tooLarge(err error) bool {
	var large *http.MaxBytesError
	return errors.As(err, &large)
}

// number reads a count out of the query, 1 to the most; the most where there is none.
func number(r *http.Request, key string, most int) (int, error) {
	text := r.URL.Query().Get(key)
	if text == "" {
		return most, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, refuse(http.StatusBadRequest, onboard.BadRequest, "%s: %.40q, wants 1 to %d", key, text, most)
	}
	return n, nil
}

// maxText bounds what of others' words goes into an error or the log, in bytes.
const maxText = 200

func clip(s string) string { return s[:min(len(s), maxText)] }

// Lines of the log about refusals: so many at once, then one each so often.
const (
	maxLines  = 20
	lineEvery = 5 * time.Second
)

// refusals writes what was refused into the log, within bounds: somebody who is refused
// for ever must not fill the disk.
type refusals struct {
	log *slog.Logger

	mu      sync.Mutex
	spent   float64 // lines, of maxLines
	at      time.Time
	dropped int
}

func (r *refusals) say(ctx context.Context, what string, attrs ...any) {
	r.mu.Lock()
	now := time.Now()
	r.spent = max(0, r.spent-float64(now.Sub(r.at))/float64(lineEvery))
	r.at = now
	if r.spent+1 > maxLines {
		r.dropped++
		r.mu.Unlock()
		return
	}
	r.spent++
	dropped := r.dropped
	r.dropped = 0
	r.mu.Unlock()
	if dropped > 0 {
		attrs = append(attrs, "refused_before_and_not_written", dropped)
	}
	r.log.WarnContext(ctx, what, attrs...)
}
