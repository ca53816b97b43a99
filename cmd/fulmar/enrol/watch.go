// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"fulmar/cmd/fulmar/here"
)

// lookEvery is how often fulmard is asked how it stands.
const lookEvery = 100 * time.Millisecond

// watcher looks on while fulmard enrols and connects.
type watcher struct {
	*run
	status *here.Status // nil where it is off
	before os.FileInfo  // of the status socket before the start; nil if there was none
	fresh  bool         // the fulmard that answers is the one that was started
	phase  phase
	began  time.Time // of the phase
	since  string    // what the phase waits for, in fulmard's words
	health *here.Health
}

// phase is what becomes true next, in this order.
type phase int

const (
	key phase = iota
	certificate
	link
	record
	done
)

func (p phase) String() string { return [...]string{"key", "certificate", "link", "record", "end"}[p] }

// quiet is how long a phase may last before it is told what it waits for.
const quiet = 3 * time.Second

// watch is prepared before fulmard is started.
func (r *run) watch() (*watcher, error) {
	w := &watcher{run: r, began: time.Now()}
	var err error
	if w.status, err = here.Ask(&r.shown.Config); err != nil && !errors.Is(err, here.ErrOff) {
		return nil, &Failure{What: "fulmard could not be asked how it stands", Because: err.Error(), Do: "mend the status section of its config, then fulmar enrol again"}
	}
	if w.status != nil {
		if w.before, err = os.Stat(w.status.Where()); err != nil {
			w.before = nil
		}
	}
	return w, nil
}

// until looks on until the fleet has acknowledged a record, or something is wrong for
// sure, or the time is up.
func (w *watcher) until(ctx context.Context, deadline time.Time, t *ticket) error {
	for {
		for w.phase < done {
			say, err := w.look(ctx)
			if err != nil {
				w.add(w.phase.String(), "failed", here.Bad, firstLine(err))
				return err
			}
			if say == "" {
				break
			}
			w.over(say, t)
		}
		if w.phase == done {
			return nil
		}
		if time.Since(w.began) > quiet {
			w.waiting(w.phase.String(), w.since)
		}
		if time.Now().After(deadline) {
			return w.late(t)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted while waiting for the %s; what fulmard does meanwhile it goes on with: %w", w.phase, ctx.Err())
		case <-time.After(lookEvery):
		}
	}
}

// over notes that the present phase is.
func (w *watcher) over(say string, t *ticket) {
	w.add(w.phase.String(), "ok", here.Good, say)
	if w.phase == certificate { // from now on this is who the board is
		w.undo = nil
		if t.token.Secret != "" {
			if err := os.Truncate(w.o.TokenFile, 0); err != nil {
				w.note("The token is used but still stands in %s: %v. Empty it.", w.o.TokenFile, err)
			}
		}
	}
	w.phase, w.since, w.began = w.phase+1, "", time.Now()
}

// look gives a sentence when the present phase is over, "" while it lasts.
func (w *watcher) look(ctx context.Context) (string, error) {
	if w.status == nil {
		return w.lookBlind()
	}
	if !w.isFresh() {
		w.since = "fulmard has not started yet"
		return "", nil
	}
	h, err := w.status.Health(ctx)
	if err != nil {
		w.since = "fulmard does not answer: " + err.Error()
		return "", nil
	}
	w.health = h
	if h.Identity == nil {
		w.since = "fulmard has not begun to enrol"
		return "", nil
	}
	w.since = cause(h)
	if f := refused(h, w.o.Pin != ""); f != nil {
		return "", f
	}
	switch w.phase {
	case key:
		return w.key(), nil
	case certificate:
		return w.certificate(), nil
	case link:
		if h.Link == "up" {
			return "records flow to the fleet", nil
		}
	case record:
		m, err := w.status.Metrics(ctx)
		if err != nil {
			w.since = err.Error()
		} else if n := m["fulmar_link_acked_total"]; n > 0 {
			return fmt.Sprintf("the first record is stored by the fleet, %s after the start of this", short(w.took())), nil
		}
	}
	return "", nil
}

// lookBlind is for a board that nobody can ask: the certificate is all there is to see.
func (w *watcher) lookBlind() (string, error) {
	switch w.phase {
	case key:
		return "not told: " + here.ErrOff.Error(), nil
	case certificate:
		return w.certificate(), nil
	}
	return "not told: status.listen is off", nil
}

// isFresh tells whether the socket is that of a fulmard started since.
func (w *watcher) isFresh() bool {
	if w.fresh || w.before == nil {
		return true
	}
	now, err := os.Stat(w.status.Where())
	w.fresh = err == nil && (!os.SameFile(now, w.before) || !now.ModTime().Equal(w.before.ModTime()))
	return w.fresh
}

func (w *watcher) key() string {
	switch i := w.health.Identity; {
	case i.Key == "tpm" && i.TPM != "":
		return "in the TPM (" + i.TPM + "), which it never leaves"
	case i.Key == "tpm":
		return "in the TPM, which it never leaves"
	case i.Key != "":
		return "in a file: who copies this disk has it"
	}
	return ""
}

func (w *watcher) certificate() string {
	if w.health != nil && w.health.Identity.State != here.StateEnrolled {
		if i := w.health.Identity; i.State == here.StateApproval {
			if _, say, ok := strings.Cut(w.since, i.Fingerprint+": "); ok { // behind fulmard's own words for it
				w.since = say
			}
			name := w.o.Board
			if name == "" {
				name = "BOARD"
			}
			w.waiting("certificate", fmt.Sprintf("a person has to let this board in; its fingerprint is %s\n%21s%s\n%21son the page https://%s, or: fulmar board approve %s --fingerprint %s",
				i.Fingerprint, "", w.since, "", w.Fleet, name, i.Fingerprint))
			w.began = time.Now() // it is told
		}
		return ""
	}
	id, err := here.ReadIdentity(w.data)
	if err != nil {
		w.since = err.Error()
		return ""
	}
	w.Board, w.Tenant = id.Board, id.Tenant
	say := "board " + id.Board + ", tenant " + id.Tenant
	if id.Trust != "" {
		say += ", trust " + id.Trust
	}
	return say
}

// cause is fulmard's own word for what it waits for.
func cause(h *here.Health) string {
	for _, c := range h.Causes {
		for _, of := range []string{"link: ", "identity: "} {
			if say, ok := strings.CutPrefix(c, of); ok {
				return say
			}
		}
	}
	return "its identity is " + h.Identity.State + ", its link " + h.Link
}

// refused is what a refusal of the fleet means; nil where there is none that lasts.
func refused(h *here.Health, asks bool) *Failure {
	const again = "then type fulmar enrol again"
	f := &Failure{Because: cause(h), Is: ErrRefused}
	if _, say, ok := strings.Cut(f.Because, "): "); ok { // fleet refused the enrolment (403 Forbidden): ...
		f.Because = say
	}
	switch code := h.Identity.Refusal; code {
	case "", "too-many-requests", "full": // fulmard asks again
		return nil
	case "token":
		if asks { // a person is asked next
			return nil
		}
		f.What, f.Do = "the fleet refuses the token", "make a new one on the server (fulmar-fleet token; for a board that the fleet knows: --board NAME), "+again
	case "name-taken":
		f.What, f.Do = "the fleet has a board of this name", "choose another (fulmar enrol --board NAME), or make a token for this very board (fulmar-fleet token --board NAME), "+again
	case "elsewhere":
		f.What, f.Do = "the fleet knows this board by another name", "wipe or forget that one at the fleet (fulmar board wipe NAME), "+again
	case "revoked":
		f.What, f.Do = "this board was revoked", "if it shall come back: fulmar-fleet token --board NAME, "+again
	case "refused":
		f.What, f.Do = "a person refused this board", "ask at the fleet; approving it there takes that back"
	case "needs-tpm":
		f.What, f.Do = "the fleet lets in no board with its key in a file", "enable this board's TPM (fulmar tpm info), or set enrol.least: software at the fleet, "+again
	default:
		f.What, f.Do = "the fleet refuses this board ("+code+")", "journalctl -u fulmard and the log of fulmar-fleet tell more; "+again
	}
	return f
}

// late says what is waited for when the time is up.
func (w *watcher) late(t *ticket) error {
	name := w.phase.String()
	on := "fulmard goes on by itself; fulmar doctor tells how it stands"
	if w.health != nil && w.health.Identity != nil && w.phase <= certificate {
		switch w.health.Identity.State {
		case here.StateApproval:
			do := "compare it there and approve (page, or fulmar board approve); the board comes in by itself then"
			if w.was != nil {
				do = "compare it there and approve (page, or fulmar board approve), then fulmar enrol --again within a day"
			}
			return &Failure{
				What: "not enrolled yet: a person has to let this board in", Because: w.since + "\nThe fleet at " + t.address + " shows it with the fingerprint " + w.health.Identity.Fingerprint,
				Do: do, Is: ErrWaiting,
			}
		case here.StateNoTPM, here.StateTPM:
			on = "fulmar tpm info tells more; without a TPM: key: {mode: software} in the config, and fulmar enrol again"
		}
	}
	w.add(name, "failed", here.Bad, "not within "+w.o.Timeout.String())
	return &Failure{What: "no " + name + " within " + w.o.Timeout.String(), Because: w.since, Do: on}
}
