// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"

	"fulmar/internal/fit"
	"fulmar/link/internal/suspect"
	"fulmar/schema"
)

// online tells the spool whether records flow.
func (s *Session) online(up bool) {
	if o, ok := s.out.(OnlineTeller); ok {
		o.Online(up)
	}
}

// learn draws what can be learned from a connection's end: which records may have
// arrived, and which message the broker may have ended it for. It gives the error
// to show.
func (s *Session) learn(g *gen, err error) error {
	oldest, overtaken, alone, open := g.Left()
	s.mu.Lock()
	for _, f := range open {
		s.unsure.Add(f)
	}
	s.mu.Unlock()
	if first, any := g.First(); s.desk.Blamed(g.post, first, any, g.hungUp()) {
		return err
	}
	// A line that broke says nothing about a message. A broker that hung up may, and
	// one that acknowledged a later message, or nothing while it had that one alone.
	if !g.hungUp() && !overtaken && (alone == nil || !errors.Is(err, errSilent)) {
		return err
	}
	v := s.suspects.Ended(oldest, alone)
	switch {
	case v.Suspect != nil:
		s.cfg.Log.Warn("the broker ended three connections at the same message; it is held back and its records will be tried alone",
			"class", v.Suspect.Class.String(), "first", v.Suspect.First, "last", v.Suspect.Last)
	case v.Condemned != nil:
		if e := s.condemn(*v.Condemned); e != nil {
			return fmt.Errorf("%w; %w", err, e)
		}
	case v.Blocked != nil:
		return s.block(v.Blocked, err)
	}
	return err
}

// condemn gives up a record that the broker ended three connections for while it
// was alone in flight.
func (s *Session) condemn(r suspect.Record) error {
	text := fmt.Sprintf("record %d of class %s is given up: the broker ended each connection that carried it alone, and takes others", r.Seq, r.Class)
	ledger, ok := s.out.(Refuser)
	if !ok {
		s.cfg.Log.Error("the broker refuses a record; it stays, as there is no ledger to write it into", "class", r.Class.String(), "seq", r.Seq)
		return nil
	}
	if err := ledger.Refuse(r.Class, r.Epoch, r.Seq, schema.ReasonRefused); err != nil {
		return fmt.Errorf("write record %d of class %s into the loss ledger: %w", r.Seq, r.Class, err)
	}
	s.suspects.Settled(r)
	s.count(func(st *Status) { st.Refused++ })
	s.cfg.Log.Error("record given up", "class", r.Class.String(), "seq", r.Seq, "reason", schema.ReasonRefused.String())
	s.report(schema.Report{Subject: "link/refused", State: "refused", Severity: schema.SeverityWarn, Text: text})
	return nil
}

// block notes that nothing of a class gets through: then it is not the message.
func (s *Session) block(m *suspect.Message, err error) error {
	err = fmt.Errorf("the broker ends each connection at a message of class %s (records %d to %d) and lets nothing of that class through: "+
		"look at its access rules and its limits for this board; nothing is given up: %w", m.Class, m.First, m.Last, err)
	s.mu.Lock()
	s.blocked[m.Class] = err
	s.mu.Unlock()
	s.report(schema.Report{Subject: "link/" + m.Class.String(), State: "blocked", Severity: schema.SeverityAlarm, Text: err.Error()})
	return err
}

// unblock notes that a message of a class got through.
func (s *Session) unblock(c schema.Class) {
	s.mu.Lock()
	was := s.blocked[c] != nil
	if s.blocked[c] = nil; was && s.status.State == StateUp {
		s.status.Err = errors.Join(s.blocked[:]...)
	}
	s.mu.Unlock()
	if was {
		s.report(schema.Report{Subject: "link/" + c.String(), State: "ok", Text: "the broker takes messages of class " + c.String() + " again"})
	}
}

func (s *Session) report(r schema.Report) {
	r.Text = fit.Text(r.Text, schema.MaxText)
	if s.cfg.Report != nil {
		s.cfg.Report(r)
	}
}
