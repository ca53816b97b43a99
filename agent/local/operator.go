// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"fulmar/command"
	"fulmar/schema"
	"fulmar/schema/onboard"
	"fulmar/trust"
)

const (
	// challengeLife is for an external signer that a person has to touch.
	challengeLife = 2 * time.Minute
	// maxChallenges bounds those that are remembered, in all and of one user: who asks for
	// more loses his own oldest, nobody else's.
	maxChallenges  = 256
	maxChallengeOf = 8
	// keyWord is how much of a key's id stands in an actor, in hex digits.
	keyWord = 16
)

// challenges are the ids that the board gave out for signed commands. One is good once,
// for the user who asked, and in this life of the program. Safe for many goroutines.
type challenges struct {
	mu   sync.Mutex
	list []asked // the oldest first
}

type asked struct {
	id   command.ID
	uid  int
	at   time.Time
	used bool
}

func newChallenges() *challenges { return &challenges{} }

// give makes a challenge, or says why not.
func (c *challenges) give(uid int, now time.Time) (command.ID, error) {
	var id command.ID
	if _, err := rand.Read(id[:]); err != nil {
		return id, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	keep, mine := c.list[:0], 0
	for _, a := range c.list {
		if now.Sub(a.at) < 2*challengeLife { // as long again, to say what is wrong with it
			keep = append(keep, a)
		}
	}
	c.list = keep
	oldest := -1
	for i, a := range c.list {
		if a.uid == uid {
			if mine++; oldest < 0 {
				oldest = i
			}
		}
	}
	if mine >= maxChallengeOf {
		c.list = append(c.list[:oldest], c.list[oldest+1:]...)
	}
	if len(c.list) >= maxChallenges {
		return id, refuse(http.StatusServiceUnavailable, onboard.TooMany, "%d challenges are out, which is the most; try again in some minutes", len(c.list))
	}
	c.list = append(c.list, asked{id: id, uid: uid, at: now})
	return id, nil
}

// take uses a challenge up, or says why it is not good.
func (c *challenges) take(id command.ID, uid int, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.list {
		a := &c.list[i]
		if a.id != id {
			continue
		}
		switch {
		case a.uid != uid:
			return challengeError("it was given to another user")
		case a.used:
			return challengeError("it was used: each is good for one command")
		case now.Sub(a.at) >= challengeLife:
			return challengeError("it is older than " + challengeLife.String())
		}
		a.used = true
		return nil
	}
	return challengeError("this board has not given it, or has started again since")
}

func challengeError(why string) error {
	no := refuse(http.StatusForbidden, onboard.Challenged, "the challenge that was signed is not good: %s", why)
	no.Do = "give the command again: a new challenge is asked for"
	return no
}

func (s *Server) challenge(a *answer, _ *http.Request, c caller) error {
	tenant, board := s.cfg.Name()
	if board == "" || s.cfg.Keys() == nil {
		return refuse(http.StatusServiceUnavailable, onboard.NotReady, "this board knows no keys of operators yet: they come from its fleet")
	}
	id, err := s.challenges.give(c.UID, s.now())
	if err != nil {
		return err
	}
	return a.json(onboard.Challenge{ID: id.String(), Tenant: tenant, Board: board, Left: int64(challengeLife / time.Second)})
}

// signed takes a command that a key of role operator signed, from whoever brings it.
func (s *Server) signed(a *answer, r *http.Request, c caller) error {
	cs, err := s.commands()
	if err != nil {
		return err
	}
	var in onboard.Signed
	if err := read(r, &in); err != nil {
		return err
	}
	cmd, err := s.open(in.Envelope, c)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("command signed by an operator's key", "brought_by", c.user, "uid", c.UID, "actor", cmd.Actor, "command", cmd.Name)
	return s.order(a, r, cs, Order{ID: cmd.ID, Actor: cmd.Actor, Name: cmd.Name, Args: cmd.Args, Reason: cmd.Reason, DryRun: cmd.DryRun}, in.Wait)
}

// open gives the command of an envelope, once all is proven: the key's role, that it is
// meant for this board, that its actor is this key, and the challenge, which is used up.
func (s *Server) open(envelope []byte, c caller) (*command.Command, error) {
	keys := s.cfg.Keys()
	if keys == nil {
		return nil, refuse(http.StatusServiceUnavailable, onboard.NotReady, "this board knows no keys of operators yet: they come from its fleet")
	}
	payload, keyID, err := keys.Operator(envelope)
	if err != nil {
		no := refuse(http.StatusForbidden, onboard.NotSigned, "not signed by a key that is an operator's on this board: %s", clip(err.Error()))
		if errors.Is(err, trust.ErrMalformed) {
			no = refuse(http.StatusBadRequest, onboard.BadRequest, "no signed command: %s", clip(err.Error()))
		}
		no.Do = "the board knows the keys of its fleet's newest key set that reached it: fulmar-fleet keys show"
		return nil, no
	}
	var cmd command.Command
	if err := schema.Decode(payload, &cmd); err != nil {
		return nil, refuse(http.StatusBadRequest, onboard.BadRequest, "what was signed is no command: %s", clip(err.Error()))
	}
	if err := cmd.Validate(); err != nil {
		return nil, refuse(http.StatusBadRequest, onboard.BadRequest, "what was signed is no command: %s", clip(err.Error()))
	}
	tenant, board := s.cfg.Name()
	switch {
	case cmd.Tenant != tenant || cmd.Board != board:
		return nil, refuse(http.StatusForbidden, command.CodeAddress, "it is signed for board %s of %s, this is %s of %s", cmd.Board, cmd.Tenant, board, tenant)
	case cmd.Actor != KeyActor(keyID):
		return nil, refuse(http.StatusForbidden, onboard.NotSigned, "it names %s as its actor and is signed by %s", cmd.Actor, KeyActor(keyID))
	}
	return &cmd, s.challenges.take(cmd.ID, c.UID, s.now())
}

// KeyActor is the actor of commands that a key signed: key/ and the first digits of its id.
func KeyActor(keyID string) string {
	if b, err := hex.DecodeString(keyID); err != nil || len(b)*2 < keyWord {
		return "key/unknown"
	}
	return "key/" + strings.ToLower(keyID[:keyWord])
}
