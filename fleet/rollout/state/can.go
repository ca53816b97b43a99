// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"

	"fulmar/schema/rest"
)

// Can lists what a person can do to it now.
func (r *Rollout) Can() (out []string) {
	for _, a := range []struct {
		word string
		on   Cause
	}{
		{rest.RolloutStart, OnStart},
		{rest.RolloutApprove, OnApprove},
		{rest.RolloutPause, OnPause},
		{rest.RolloutResume, OnResume},
		{rest.RolloutRetry, OnRetry},
		{rest.RolloutAbort, OnAbort},
		{rest.RolloutRollback, OnRollback},
	} {
		if r.CanOn(a.on) {
			out = append(out, a.word)
		}
	}
	return out
}

func (r *Rollout) CanOn(on Cause) bool {
	if r.State == Stopping { // what is under way is brought to its end first
		return false
	}
	return slices.ContainsFunc(Table(), func(t Transition) bool { return t.From == r.State && slices.Contains(t.On, on) })
}

// Theirs tells whether a person planned or started it; nobody counts as one who did.
func (r *Rollout) Theirs(author string) bool {
	return author == "" || author == r.Author || author == r.Starter
}
