// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package book

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"fulmar/fleet/rollout/state"
	"fulmar/schema/rest"
)

// maxSay bounds the sentence of an event, in bytes: a chat shows no more, and an event
// that is too long for its receivers must not keep a rollout from going on.
const maxSay = 2 << 10

// Event is what others hear of a rollout.
type Event struct {
	Tenant, Type string // of rest's types of events
	At           time.Time
	Data         rest.RolloutEvent
}

// Tell passes an event on, in the transaction that keeps what happened.
type Tell func(ctx context.Context, tx *sql.Tx, e Event) error

// telling gives what a rollout's steps are told as; nil for nothing.
func (b *Book) telling(r *state.Rollout, steps []rest.RolloutStep) func(context.Context, *sql.Tx) error {
	if b.tell == nil || len(steps) == 0 {
		return nil
	}
	return func(ctx context.Context, tx *sql.Tx) error {
		for _, s := range steps {
			say := s.Say
			if len(say) > maxSay {
				say = strings.ToValidUTF8(say[:maxSay], "") + "..."
			}
			for _, word := range words(state.State(s.From), state.State(s.To)) {
				err := b.tell(ctx, tx, Event{r.Tenant, word, s.At, rest.RolloutEvent{
					Rollout: r.ID, Version: r.Version, Name: r.Spec.Name, Component: r.Spec.Component, Release: r.Spec.Release,
					From: s.From, State: s.To, Who: s.Who, Say: say,
				}})
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// words are the types of event that a step is told as. A pause of a person's, and what
// goes on after it where it was, is told to nobody.
func words(from, to state.State) (out []string) {
	switch to {
	case state.Approval:
		return []string{rest.RolloutAsks}
	case state.Held:
		return []string{rest.RolloutHeld}
	case state.Halted:
		return []string{rest.RolloutHalted}
	case state.Done:
		return []string{rest.RolloutDone}
	case state.RolledBack:
		return []string{rest.RolloutRolledBack}
	case state.Aborted:
		return []string{rest.RolloutAborted}
	case state.Waiting, state.Before, state.InWave:
		if from == state.Planned || from == state.Approval || from.Over() {
			out = append(out, rest.RolloutStarted)
		}
		if to == state.InWave && from != state.Paused {
			out = append(out, rest.RolloutWave)
		}
	}
	return out
}
