// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"fulmar/command"
	"fulmar/internal/fit"
	"fulmar/internal/run"
	"fulmar/schema"
)

// take judges what was given, writes it down, and answers.
func (d *Dispatcher) take(batch []submission) {
	t := taking{high: maps.Clone(d.l.highest), mine: map[string]uint64{}, owed: d.l.owed(), fresh: map[command.ID]command.Result{}}
	for _, it := range d.l.waiting {
		t.queued[class(d.lane(it.Name))]++
	}
	replies, first := make([]answer, len(batch)), map[command.ID]int{}
	for i := range batch {
		replies[i] = d.weigh(&t, &batch[i])
		if _, ok := first[batch[i].key()]; !ok {
			first[batch[i].key()] = i
		}
	}
	if len(batch) == 1 {
		d.atOnce(&t, &batch[0])
	}
	// Safety first, and though the disk takes nothing; the others are flushed together.
	if len(t.safety) > 0 {
		if err := d.l.write(true, t.safety...); err != nil {
			d.cfg.Slog.Error("a safety command is done though the journal's disk does not take it", "err", err)
		}
	}
	var failed error
	if len(t.lines) > 0 {
		failed = d.l.write(false, t.lines...)
	}
	for i, s := range batch {
		if r, ok := t.fresh[s.key()]; ok {
			if failed != nil && d.lane(s.cmd.Name) != command.Safety {
				replies[i] = answer{err: fmt.Errorf("command %s not accepted: %w", s.cmd.ID, failed)}
			} else if first[s.key()] == i {
				d.taken(s, r)
			}
		}
		if !s.wait || replies[i].err != nil || replies[i].r.State.Final() {
			s.answer <- replies[i]
		}
	}
}

// atOnce has the begin of a command that can begin now written with its acceptance: one
// flush of a slow disk less before its effect.
func (d *Dispatcher) atOnce(t *taking, s *submission) {
	if r, ok := t.fresh[s.key()]; !ok || r.State != command.Accepted || len(d.l.waiting) > len(d.runs) {
		return // it does not begin, or others wait before it
	}
	lane := d.lane(s.cmd.Name)
	if _, known := d.cfg.Now(); !s.local && !known {
		return
	}
	if _, stuck := d.stuck(s.cmd.Name); stuck {
		return
	}
	n := d.count()
	if n[command.Safety] > 0 || n[command.Normal] > 0 && lane == command.Normal || n[lane] >= maxQuick || n[lane] >= MaxLong && lane == command.Long {
		return
	}
	ln := line{Op: opBegin, ID: s.cmd.ID, Begun: d.cfg.Clock.Now()}
	if lane == command.Safety {
		t.safety = append(t.safety, ln)
	} else {
		t.lines = append(t.lines, ln)
	}
}

func (s *submission) key() command.ID {
	if s.cmd == nil {
		return command.ID{}
	}
	return s.cmd.ID
}

// taken lets those know who look on, once it is written down.
func (d *Dispatcher) taken(s submission, r command.Result) {
	c := *s.cmd
	rep := command.Report{V: schema.Version, Result: r, Command: &c, Given: r.Time}
	if r.State != command.Accepted {
		d.saw(rep)
		return
	}
	if s.local {
		d.deadline[c.ID] = time.Now().Add(localLife)
	}
	d.note(rep)
}

// taking is what is known while a batch is judged.
type taking struct {
	high          map[string]uint64 // by signed actor
	mine          map[string]uint64 // by local actor, of this batch
	queued        [2]int            // all but safety, and safety
	owed          int
	fresh         map[command.ID]command.Result
	lines, safety []line
}

// weigh answers one submission, and says what is to be written down.
func (d *Dispatcher) weigh(t *taking, s *submission) answer {
	if s.cmd == nil {
		return d.look(*s)
	}
	c, lane := s.cmd, d.lane(s.cmd.Name)
	if r, ok := t.fresh[c.ID]; ok { // given twice at once
		return answer{r: r}
	}
	if it := d.l.items[c.ID]; it != nil {
		d.l.again(it)
		if _, here := d.deadline[c.ID]; s.local && it.local && !here && !it.result.State.Final() {
			d.deadline[c.ID] = time.Now().Add(localLife) // of an earlier life, and who gave it wants it still
		}
		return answer{r: it.result}
	}
	if !s.local && lane != command.Safety && t.owed >= d.l.most {
		return answer{err: fmt.Errorf("command %s: %d results wait to be told, nothing more is accepted before", c.ID, t.owed)}
	}
	if s.local {
		if c.Seq = d.l.next(c.Actor); t.mine[c.Actor] >= c.Seq {
			c.Seq = t.mine[c.Actor] + 1
		}
	}
	r := d.judge(c, s.local, t)
	r.V, r.ID, r.Time = schema.Version, c.ID, d.cfg.Clock.Now()
	switch r.Code {
	case command.CodeReplayed, command.CodeActors, command.CodeActor, command.CodeAddress:
		return answer{r: r} // nothing to remember: it will never be accepted
	}
	if s.local && c.DryRun {
		return answer{r: r} // who asks is there, and nothing was done
	}
	if s.local {
		t.mine[c.Actor] = c.Seq
	} else {
		t.high[c.Actor] = c.Seq
	}
	t.fresh[c.ID] = r
	ln := line{Op: opEnd, Result: &r, Command: c, Local: s.local, Given: r.Time}
	if r.State == command.Accepted {
		ln = line{Op: opAccept, Command: c, Local: s.local, Given: r.Time}
		t.queued[class(lane)]++
	} else if !s.local {
		t.owed++
	}
	if lane == command.Safety {
		t.safety = append(t.safety, ln)
	} else {
		t.lines = append(t.lines, ln)
	}
	return answer{r: r}
}

// judge says what becomes of a new command.
func (d *Dispatcher) judge(c *command.Command, local bool, t *taking) command.Result {
	refuse := func(code, form string, args ...any) command.Result {
		return command.Result{State: command.Refused, Code: code, Text: clip(fmt.Sprintf(form, args...))}
	}
	tenant, board := d.cfg.Address()
	last, known := t.high[c.Actor]
	h := d.handlers[c.Name]
	switch {
	case local: // its number was given here, and its address
	case c.Tenant != tenant || c.Board != board || board == "":
		return refuse(command.CodeAddress, "it is for board %s of %s, this is %s of %s", c.Board, c.Tenant, board, tenant)
	case ownActor(c.Actor):
		return refuse(command.CodeActor, "%s is an actor of the board's own", c.Actor)
	case c.Seq <= last:
		return refuse(command.CodeReplayed, "number %d of %s: %d came already", c.Seq, c.Actor, last)
	case !known && c.Actor != command.ActorFleet && signed(t.high) >= maxActors:
		return refuse(command.CodeActors, "%d actors have given commands to this board, which is the most: %s is one more", maxActors, c.Actor)
	}
	if h == nil {
		return refuse(command.CodeUnknown, "this board has no command %s", c.Name)
	}
	if !local {
		if now, known := d.cfg.Now(); known && now >= c.Expires {
			return command.Result{State: command.Expired, Code: command.CodeLate, Text: fmt.Sprintf("it was valid until %d ms, now it is %d ms", c.Expires, now)}
		} else if !known && c.DryRun {
			return refuse(command.CodeNoTime, "the board does not know the fleet's time yet, so not whether this is too old")
		}
	}
	if h.Lane == command.Safety && t.queued[1]+d.lost() >= maxSafety || h.Lane != command.Safety && t.queued[0] >= maxQueue {
		return refuse(command.CodeQueueFull, "%d commands wait, which is the most; give it again later", t.queued[0]+t.queued[1])
	}
	if h.Check != nil {
		if err := h.Check(c.Args); err != nil {
			code, text := codeOf(err, command.CodeArgs)
			return refuse(code, "%s: %s", c.Name, text)
		}
	}
	if c.DryRun {
		return command.Result{State: command.Done, Text: "nothing was done: it would be accepted"}
	}
	return command.Result{State: command.Accepted}
}

// look answers a wait, a cancel or a list.
func (d *Dispatcher) look(s submission) answer {
	if s.list > 0 {
		return answer{list: d.l.newest(s.list)}
	}
	it := d.l.items[s.id]
	if it == nil {
		return answer{err: fmt.Errorf("command %s: %w", s.id, ErrNotKnown)}
	}
	if s.wait {
		if !it.result.State.Final() {
			still := slices.DeleteFunc(d.waiting[s.id], func(w waiter) bool { return w.ctx.Err() != nil })
			d.waiting[s.id] = append(still, waiter{s.ctx, s.answer})
		}
		return answer{r: it.result}
	}
	if d.lane(it.Name) == command.Safety && !it.result.State.Final() {
		return answer{err: &command.Error{Code: command.CodeSafety, Text: "a safety command is not cancelled: it would leave the board in between"}}
	}
	why := &command.Error{Code: command.CodeCancelled, Text: clip("cancelled by " + s.by)}
	if r := d.runs[s.id]; r != nil {
		d.cancel(r, why)
	} else if !it.result.State.Final() {
		d.finish(it.ID, command.Result{State: command.Cancelled, Code: why.Code, Text: why.Text})
	}
	return answer{r: it.result}
}

func (d *Dispatcher) cancel(r *running, why *command.Error) {
	if r.why == nil {
		r.why, r.giveUp = why, time.Now().Add(grace)
		r.cancel(why)
	}
}

// finish writes down how a command ended; the disk may take it later.
func (d *Dispatcher) finish(id command.ID, r command.Result) {
	r.V, r.ID, r.Time = schema.Version, id, d.cfg.Clock.Now()
	if err := d.l.write(true, line{Op: opEnd, Result: &r}); err != nil {
		d.cfg.Slog.Error("the end of a command is not on the disk yet", "command", id.String(), "err", err)
	}
	for _, w := range d.waiting[id] {
		w.answer <- answer{r: r}
	}
	if it := d.l.items[id]; it != nil {
		c, rep := it.Command, it.report()
		rep.Command = &c
		d.saw(rep)
	}
	delete(d.waiting, id)
	delete(d.deadline, id)
}

// begin starts what may run now.
func (d *Dispatcher) begin(g *run.Group) {
	// A copy: what is ended on the way leaves the list.
	waiting := slices.DeleteFunc(slices.Clone(d.l.waiting), func(it *item) bool { return d.runs[it.ID] != nil })
	safety := false
	for _, it := range waiting {
		if d.lane(it.Name) == command.Safety && d.ready(it) {
			safety = true
			d.start(g, it)
		}
	}
	count := d.count()
	if safety || count[command.Safety] > 0 {
		for _, r := range d.runs {
			if r.lane != command.Safety && r.lane != command.Quick {
				d.cancel(r, &command.Error{Code: command.CodePreempted, Text: "a safety command came"})
			}
		}
		return
	}
	for _, it := range waiting {
		l := d.lane(it.Name)
		if l == command.Safety || l == command.Normal && count[command.Normal] > 0 || l == command.Long && count[command.Long] >= MaxLong || l == command.Quick && count[command.Quick] >= maxQuick || !d.ready(it) {
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
		d.finish(it.ID, command.Result{State: command.Unknown, Code: command.CodeUnknown, Text: "this release has no command " + it.Name})
	case it.again && h.Happened != nil: // asking has no effect, so it is never too late
		return true
	case it.again && (late || !h.Repeat):
		d.finish(it.ID, command.Result{State: command.Unknown, Code: command.CodeCrashed, Text: "the board died while it ran; look whether it had its effect"})
	case late:
		d.finish(it.ID, command.Result{State: command.Expired, Code: command.CodeLate, Text: "it became too old before it could be begun"})
	default:
		// One that does not come back does not keep the next shutdown from being tried.
		if id, stuck := d.stuck(it.Name); stuck && h.Lane != command.Safety {
			d.finish(it.ID, command.Result{State: command.Refused, Code: command.CodeTimeout, Text: fmt.Sprintf("%s does not come back from command %s", it.Name, id)})
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
		if err := d.l.write(h.Lane == command.Safety, line{Op: opBegin, ID: it.ID, Begun: d.cfg.Clock.Now()}); err != nil && h.Lane != command.Safety {
			return false // tried again with the next beat
		}
	}
	limit := h.Timeout
	if limit == 0 {
		limit = command.DefaultTimeout
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
	call := command.Call{Command: it.Command, Again: it.again}
	running := command.Report{Given: it.given, Begun: it.start, Command: &call.Command, Result: command.Result{ID: it.ID, State: command.Running}}
	call.Progress = func(percent int, text string) {
		r := running
		r.Result.Percent, r.Result.Text = uint8(max(0, min(percent, 100))), clip(text)
		d.note(r)
	}
	d.note(running)
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

var errLate = &command.Error{Code: command.CodeLate, Text: "the board died before it had its effect, and then it was too old"}

// do has the effect of a call, once.
func do(ctx context.Context, h *command.Handler, call command.Call, late bool) (value []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &command.Error{Code: command.CodePanic, Text: clip(fmt.Sprintf("the handler of %s failed: %v", h.Name, p))}
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
	delete(d.away, e.id)
	r := d.runs[e.id]
	if r == nil {
		return // it was given up: its result was told
	}
	delete(d.runs, e.id)
	if d.stopping && errors.Is(e.err, command.ErrNextStart) {
		return
	}
	res := command.Result{State: command.Done, Value: e.value}
	switch {
	case e.err == nil && len(e.value) > command.MaxValue:
		res = command.Result{State: command.Done, Code: command.CodeFailed, Text: fmt.Sprintf("done; its answer of %d bytes is over %d and was left out", len(e.value), command.MaxValue)}
	case e.err == nil:
	case errors.Is(e.err, errLate):
		res = command.Result{State: command.Expired, Code: command.CodeLate, Text: errLate.Text}
	case r.why != nil && r.why.Code != command.CodeTimeout:
		res = command.Result{State: command.Cancelled, Code: r.why.Code, Text: clip(r.why.Text + ": " + e.err.Error())}
	case r.why != nil:
		res = command.Result{State: command.Failed, Code: r.why.Code, Text: clip(r.why.Text + ": " + e.err.Error())}
	default:
		code, text := codeOf(e.err, command.CodeFailed)
		res = command.Result{State: command.Failed, Code: code, Text: text}
	}
	d.finish(e.id, res)
}

// overdue cancels what takes too long, and gives up what does not end then.
func (d *Dispatcher) overdue(now time.Time) {
	for id, r := range d.runs {
		if r.why == nil && now.Sub(r.started) >= r.limit {
			d.cancel(r, &command.Error{Code: command.CodeTimeout, Text: fmt.Sprintf("not done within %v", r.limit)})
		}
		if !r.giveUp.IsZero() && now.After(r.giveUp) {
			delete(d.runs, id)
			d.away[id] = r.name
			d.finish(id, command.Result{State: command.Unknown, Code: r.why.Code, Text: clip(r.why.Text + ", and its handler does not come back: look whether it had its effect")})
		}
	}
}

func codeOf(err error, other string) (code, text string) {
	var e *command.Error
	if errors.As(err, &e) && e.Code != "" && len(e.Code) <= command.MaxCode {
		return e.Code, clip(err.Error())
	}
	return other, clip(err.Error())
}

// clip makes text fit.
func clip(s string) string { return fit.Text(s, schema.MaxText) }
