// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"fulmar/command"
	"fulmar/command/dispatch"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/trust"
)

const (
	// challengeLife is how long agent/commands takes a challenge back.
	challengeLife = time.Minute
	// maxChallenges is how many of one user are out and not used: the board remembers some
	// in all, and nobody shall push out another's.
	maxChallenges = 8
)

// asked counts the challenges of each user. Safe for many goroutines.
type asked struct {
	mu sync.Mutex
	of map[int][]time.Time
}

// more tells whether a user may have one more now, and counts it.
func (a *asked) more(uid int, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for u, all := range a.of { // few: each has a connection
		all = slices.DeleteFunc(all, func(t time.Time) bool { return now.Sub(t) >= challengeLife })
		if a.of[u] = all; len(all) == 0 {
			delete(a.of, u)
		}
	}
	if len(a.of[uid]) >= maxChallenges {
		return false
	}
	a.of[uid] = append(a.of[uid], now)
	return true
}

// used gives a user the place of a challenge back that was redeemed: who gives many
// commands in order is not held up.
func (a *asked) used(uid int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if all := a.of[uid]; len(all) > 0 {
		a.of[uid] = all[1:]
	}
}

func (s *Server) challenge(a *answer, _ *http.Request, c caller) error {
	cs, err := s.commands()
	if err != nil {
		return err
	}
	if !s.asked.more(c.UID, s.now()) {
		return refuse(http.StatusServiceUnavailable, onboard.TooMany, "%s has asked for %d challenges within %v and used none of them, which is the most; try again in a minute", c.user, maxChallenges, challengeLife)
	}
	id, err := cs.Challenge()
	if err != nil {
		return err
	}
	tenant, board := s.cfg.Name()
	return a.json(onboard.Challenge{ID: id.String(), Tenant: tenant, Board: board, Left: int64(challengeLife / time.Second)})
}

// signed takes a command that a key of role operator signed, from whoever brings it. What
// it is, is proven by Commands.Operator.
func (s *Server) signed(a *answer, r *http.Request, c caller) error {
	cs, err := s.commands()
	if err != nil {
		return err
	}
	var in onboard.Signed
	if err := read(r, &in); err != nil {
		return err
	}
	said := unproven(in.Envelope)
	return s.order(a, r, cs, order{actor: said.Actor, name: said.Name, reason: said.Reason, wait: in.Wait, give: func(ctx context.Context) (command.Result, error) {
		res, err := cs.Operator(ctx, in.Envelope)
		if err = notTaken(&res, err); err == nil {
			s.asked.used(c.UID)
			s.cfg.Log.Info("command signed by an operator's key", "brought_by", c.user, "uid", c.UID, "actor", said.Actor, "command", said.Name)
		}
		return res, err
	}})
}

// unproven reads what an envelope says of itself: for the board's policy, which may only
// refuse, and for the log once it is proven.
func unproven(envelope []byte) (c command.Command) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil || schema.Decode(e.Unverified(), &c) != nil {
		return command.Command{}
	}
	return c
}

// notTaken puts what was not proven into words; nil: it was.
func notTaken(res *command.Result, err error) error {
	var no *refusal
	switch {
	case errors.Is(err, dispatch.ErrNotSigned) && errors.Is(err, trust.ErrMalformed):
		return refuse(http.StatusBadRequest, onboard.BadRequest, "no signed command: %s", clip(err.Error()))
	case errors.Is(err, dispatch.ErrNotSigned):
		no = refuse(http.StatusForbidden, onboard.NotSigned, "not signed by a key that is an operator's on this board: %s", clip(strings.TrimPrefix(err.Error(), dispatch.ErrNotSigned.Error()+": ")))
		no.Do = "the board knows the keys of its fleet's newest key set that reached it: fulmar-fleet keys show"
		return no
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case err != nil:
		return refuse(http.StatusBadRequest, onboard.BadRequest, "what was signed is no command: %s", clip(err.Error()))
	case res.State != command.Refused:
		return nil
	case res.Code == command.CodeAddress, res.Code == command.CodeActor:
		return refuse(http.StatusForbidden, onboard.NotSigned, "%s", res.Text)
	case res.Code == command.CodeReplayed:
		no = refuse(http.StatusForbidden, onboard.Challenged, "%s", res.Text)
		no.Do = "give the command again: a new challenge is asked for"
		return no
	}
	return nil
}
