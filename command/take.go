// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fulmar/internal/run"
	"fulmar/schema"
)

// take judges what was given, writes it down in one flush, and answers.
func (d *Dispatcher) take(batch []submission) {
	high := maps.Clone(d.l.highest)
	queued, untold := len(d.l.waiting), len(d.l.untold)
	fresh := map[ID]Result{}
	var lines, safety []line
	replies := make([]answer, len(batch))
	writes := make([]bool, len(batch))
	for i, s := range batch {
		if s.cmd == nil {
			replies[i] = d.look(s)
			continue
		}
		if r, ok := fresh[s.cmd.ID]; ok { // given twice at once
			replies[i], writes[i] = answer{r: r}, true
			continue
		}
		if it := d.l.items[s.cmd.ID]; it != nil {
			d.l.again(it)
			replies[i] = answer{r: it.result}
			continue
		}
		if untold >= maxUntold {
			replies[i] = answer{err: fmt.Errorf("command %s: %d results wait to be told, nothing more is accepted before", s.cmd.ID, untold)}
			continue
		}
		r := d.judge(s.cmd, s.local, high, queued)
		r.V, r.ID, r.Time = schema.Version, s.cmd.ID, d.cfg.Clock.Now()
		replies[i] = answer{r: r}
		if r.Code == CodeReplayed || r.Code == CodeActors || r.Code == CodeAddress {
			continue // nothing to remember: it will never be accepted
		}
		high[s.cmd.Actor] = s.cmd.Seq
		fresh[s.cmd.ID], writes[i] = r, true
		ln := line{Op: opEnd, Result: &r, Actor: s.cmd.Actor, Seq: s.cmd.Seq}
		if r.State == Accepted {
			ln = line{Op: opAccept, Command: s.cmd, Local: s.local}
			queued++
		} else {
			untold++
		}
		if h := d.handlers[s.cmd.Name]; h != nil && h.Lane == Safety {
			safety = append(safety, ln)
		} else {
			lines = append(lines, ln)
		}
	}
	err := d.l.write(len(safety) > 0, append(safety, lines...)...)
	if err != nil && len(safety) > 0 {
		d.cfg.Slog.Error("a safety command is done though the journal's disk does not take it", "err", err)
		err = nil
	}
	for i, s := range batch {
		if writes[i] && err != nil {
			replies[i] = answer{err: fmt.Errorf("command %s not accepted: %w", s.cmd.ID, err)}
		} else if writes[i] && s.local && replies[i].r.State == Accepted {
			d.deadline[s.cmd.ID] = time.Now().Add(localLife)
		}
		if !s.wait || replies[i].err != nil || replies[i].r.State.Final() {
			s.answer <- replies[i]
		}
	}
}

// judge says what becomes of a new command.
func (d *Dispatcher) judge(c *Command, local bool, high map[string]uint64, queued int) Result {
	refuse := func(code, form string, args ...any) Result {
		return Result{State: Refused, Code: code, Text: clip(fmt.Sprintf(form, args...))}
	}
	last, known := high[c.Actor]
	h := d.handlers[c.Name]
	switch {
	case c.Tenant != d.cfg.Tenant || c.Board != d.cfg.Board:
		return refuse(CodeAddress, "it is for board %s of %s, this is %s of %s", c.Board, c.Tenant, d.cfg.Board, d.cfg.Tenant)
	case c.Seq <= last:
		return refuse(CodeReplayed, "number %d of %s: %d came already", c.Seq, c.Actor, last)
	case !known && len(high) >= maxActors:
		return refuse(CodeActors, "%d actors have given commands to this board, which is the most: %s is one more", len(high), c.Actor)
	case h == nil:
		return refuse(CodeUnknown, "this board has no command %s", c.Name)
	}
	if !local {
		if now, known := d.cfg.Now(); known && now >= c.Expires {
			return Result{State: Expired, Code: CodeLate, Text: fmt.Sprintf("it was valid until %d ms, now it is %d ms", c.Expires, now)}
		} else if !known && c.DryRun {
			return refuse(CodeNoTime, "the board does not know the fleet's time yet, so not whether this is too old")
		}
	}
	if queued >= maxQueue && h.Lane != Safety {
		return refuse(CodeQueueFull, "%d commands wait, which is the most; give it again later", queued)
	}
	if h.Check != nil {
		if err := h.Check(c.Args); err != nil {
			code, text := codeOf(err, CodeArgs)
			return refuse(code, "%s: %s", c.Name, text)
		}
	}
	if c.DryRun {
		return Result{State: Done, Text: "nothing was done: it would be accepted"}
	}
	return Result{State: Accepted}
}

// look answers a wait or a cancel.
func (d *Dispatcher) look(s submission) answer {
	it := d.l.items[s.id]
	if it == nil {
		return answer{err: fmt.Errorf("command %s: %w", s.id, ErrNotKnown)}
	}
	if s.wait {
		if !it.result.State.Final() {
			d.waiting[s.id] = append(d.waiting[s.id], s.answer)
		}
		return answer{r: it.result}
	}
	why := &Error{CodeCancelled, clip("cancelled by " + s.by)}
	if r := d.runs[s.id]; r != nil {
		d.cancel(r, why)
	} else if !it.result.State.Final() {
		d.finish(it.ID, Result{State: Cancelled, Code: why.Code, Text: why.Text})
	}
	return answer{r: it.result}
}

func (d *Dispatcher) cancel(r *running, why *Error) {
	if r.why == nil {
		r.why, r.giveUp = why, time.Now().Add(grace)
		r.cancel(why)
	}
}

// finish writes down how a command ended; the disk may take it later.
func (d *Dispatcher) finish(id ID, r Result) {
	r.V, r.ID, r.Time = schema.Version, id, d.cfg.Clock.Now()
	if err := d.l.write(true, line{Op: opEnd, Result: &r}); err != nil {
		d.cfg.Slog.Error("the end of a command is not on the disk yet", "command", id.String(), "err", err)
	}
	for _, w := range d.waiting[id] {
		w <- answer{r: r}
	}
	delete(d.waiting, id)
	delete(d.deadline, id)
}

// begin starts what may run now.
func (d *Dispatcher) begin(g *run.Group) {
	// A copy: what is ended on the way leaves the list.
	waiting := slices.DeleteFunc(slices.Clone(d.l.waiting), func(it *item) bool { return d.runs[it.ID] != nil })
	lane := func(it *item) Lane {
		if h := d.handlers[it.Name]; h != nil {
			return h.Lane
		}
		return Normal
	}
	safety := false
	for _, it := range waiting {
		if lane(it) == Safety && d.ready(it) {
			safety = true
			d.start(g, it)
		}
	}
	count := map[Lane]int{}
	for _, r := range d.runs {
		count[r.lane]++
	}
	if safety || count[Safety] > 0 {
		for _, r := range d.runs {
			if r.lane != Safety {
				d.cancel(r, &Error{CodePreempted, "a safety command came"})
			}
		}
		return
	}
	for _, it := range waiting {
		l := lane(it)
		if l == Safety || l == Normal && count[Normal] > 0 || l == Long && count[Long] >= MaxLong || !d.ready(it) {
			continue
		}
		if d.start(g, it) {
			count[l]++
		}
	}
}

// ready tells whether a command may be begun; one that may not any more is ended. One
// whose validity cannot be told waits.
func (d *Dispatcher) ready(it *item) bool {
	late := false
	if it.local {
		until, here := d.deadline[it.ID]
		late = !here || !time.Now().Before(until) // given in an earlier life of the program
	} else {
		now, known := d.cfg.Now()
		if !known {
			return false
		}
		late = now >= it.Expires
	}
	h := d.handlers[it.Name]
	switch {
	case h == nil: // of an earlier release
		d.finish(it.ID, Result{State: Unknown, Code: CodeUnknown, Text: "this release has no command " + it.Name})
	case it.again && h.Happened != nil: // asking has no effect, so it is never too late
		return true
	case it.again && (late || !h.Repeat):
		d.finish(it.ID, Result{State: Unknown, Code: CodeCrashed, Text: "the board died while it ran; look whether it had its effect"})
	case late:
		d.finish(it.ID, Result{State: Expired, Code: CodeLate, Text: "it became too old before it could be begun"})
	default:
		if id, stuck := d.stuck[it.Name]; stuck {
			d.finish(it.ID, Result{State: Refused, Code: CodeTimeout, Text: fmt.Sprintf("%s does not come back from command %s", it.Name, id)})
			return false
		}
		return true
	}
	return false
}

// start writes down that a command begins, and begins it. It does not if the disk takes
// nothing, except for safety.
func (d *Dispatcher) start(g *run.Group, it *item) bool {
	h := d.handlers[it.Name]
	if !it.begun {
		if err := d.l.write(h.Lane == Safety, line{Op: opBegin, ID: it.ID}); err != nil && h.Lane != Safety {
			return false // tried again with the next beat
		}
	}
	limit := h.Timeout
	if limit == 0 {
		limit = DefaultTimeout
	}
	// Not the group's context: what runs when the program stops gets its time to end.
	ctx, cancel := context.WithCancelCause(context.Background())
	d.runs[it.ID] = &running{lane: h.Lane, cancel: cancel, name: h.Name, started: time.Now(), limit: limit}
	late := false
	if now, known := d.cfg.Now(); !it.local {
		late = known && now >= it.Expires
	} else if until, here := d.deadline[it.ID]; !here || !time.Now().Before(until) {
		late = true
	}
	call := Call{Command: it.Command, Again: it.again}
	call.Progress = func(percent int, text string) {
		d.note(Result{ID: call.ID, State: Running, Percent: uint8(max(0, min(percent, 100))), Text: clip(text)})
	}
	d.note(Result{ID: it.ID, State: Running})
	g.Go("command "+h.Name, func(context.Context) error {
		defer cancel(nil)
		e := ending{id: call.ID, name: h.Name}
		e.value, e.err = do(ctx, h, call, late)
		select {
		case d.ended <- e:
		case <-d.over:
		}
		return nil
	})
	return true
}

var errLate = &Error{CodeLate, "the board died before it had its effect, and then it was too old"}

// do has the effect of a call, once.
func do(ctx context.Context, h *Handler, call Call, late bool) (value []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &Error{CodePanic, clip(fmt.Sprintf("the handler of %s failed: %v", h.Name, p))}
		}
	}()
	if call.Again && h.Happened != nil {
		happened, value, err := h.Happened(ctx, call)
		if err != nil || happened {
			return value, err
		}
		if late {
			return nil, errLate
		}
	}
	return h.Do(ctx, call)
}

// end takes what a handler says.
func (d *Dispatcher) end(e ending) {
	if d.stuck[e.name] == e.id {
		delete(d.stuck, e.name)
	}
	r := d.runs[e.id]
	if r == nil {
		return // it was given up: its result was told
	}
	delete(d.runs, e.id)
	res := Result{State: Done, Value: e.value}
	switch {
	case e.err == nil && len(e.value) > MaxValue:
		res = Result{State: Done, Code: CodeFailed, Text: fmt.Sprintf("done; its answer of %d bytes is over %d and was left out", len(e.value), MaxValue)}
	case e.err == nil:
	case errors.Is(e.err, errLate):
		res = Result{State: Expired, Code: CodeLate, Text: errLate.Text}
	case r.why != nil && r.why.Code != CodeTimeout:
		res = Result{State: Cancelled, Code: r.why.Code, Text: clip(r.why.Text + ": " + e.err.Error())}
	case r.why != nil:
		res = Result{State: Failed, Code: r.why.Code, Text: clip(r.why.Text + ": " + e.err.Error())}
	default:
		code, text := codeOf(e.err, CodeFailed)
		res = Result{State: Failed, Code: code, Text: text}
	}
	d.finish(e.id, res)
}

// overdue cancels what takes too long, and gives up what does not end then.
func (d *Dispatcher) overdue(now time.Time) {
	for id, r := range d.runs {
		if r.why == nil && now.Sub(r.started) >= r.limit {
			d.cancel(r, &Error{CodeTimeout, fmt.Sprintf("not done within %v", r.limit)})
		}
		if !r.giveUp.IsZero() && now.After(r.giveUp) {
			delete(d.runs, id)
			d.stuck[r.name] = id
			d.finish(id, Result{State: Unknown, Code: r.why.Code, Text: clip(r.why.Text + ", and its handler does not come back: look whether it had its effect")})
		}
	}
}

func codeOf(err error, other string) (code, text string) {
	var e *Error
	if errors.As(err, &e) && e.Code != "" && len(e.Code) <= maxWord {
		return e.Code, clip(err.Error())
	}
	return other, clip(err.Error())
}

func clip(s string) string { return s[:min(len(s), schema.MaxText)] }
