// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package joins

import (
	"errors"

	"fulmar/fleet/alerts"
	"fulmar/fleet/api/door"
	"fulmar/fleet/commands"
	"fulmar/fleet/registry"
	"fulmar/fleet/registry/accounts"
	"fulmar/fleet/registry/meta"
	"fulmar/fleet/registry/rollouts"
	"fulmar/fleet/releases"
	"fulmar/fleet/rollout"
	"fulmar/fleet/rollout/book"
	"fulmar/fleet/rollout/plan"
	"fulmar/fleet/rollout/runner"
	"fulmar/fleet/twins"
	"fulmar/schema/rest"
)

// Known are the errors of the parts and what they mean to whoever asked.
func Known() []door.Known {
	say := func(code rest.Code, errs ...error) (out []door.Known) {
		for _, err := range errs {
			out = append(out, door.Known{Err: err, Code: code, Say: true})
		}
		return out
	}
	var out []door.Known
	for _, k := range [][]door.Known{
		say(rest.CodeStale, meta.ErrStale, alerts.ErrStale, runner.ErrStale, twins.ErrStale),
		say(rest.CodeTargetEmpty, plan.ErrNoBoards, commands.ErrNoBoards),
		say(rest.CodeSecondPerson, rollout.ErrSamePerson),
		say(rest.CodeCommandSame, commands.ErrSamePerson),
		say(rest.CodeCommandForm, &commands.Error{}),
		say(rest.CodeCommandsOpen, commands.ErrTooMany),
		say(rest.CodeQuery, runner.ErrQuery),
		say(rest.CodeTwinKey, twins.ErrInvalid),
		say(rest.CodeNoConflict, twins.ErrNoConflict),
		say(rest.CodeBusy, twins.ErrStopped, releases.ErrBusy),
		say(rest.CodeConflict, commands.ErrState, rollout.ErrState, rollouts.ErrClaimed, accounts.ErrLastAdmin, accounts.ErrNameTaken, releases.ErrTaken, releases.ErrMissing, releases.ErrInUse),
		say(rest.CodeRefused, meta.ErrInvalid, alerts.ErrInvalid, accounts.ErrBadName, &plan.Error{}, releases.ErrUntrusted, releases.ErrEpoch, releases.ErrWrong),
		say(rest.CodeFull, meta.ErrTooMany, alerts.ErrTooMany, accounts.ErrTooMany, runner.ErrTooMany, registry.ErrTooMany, twins.ErrFull, releases.ErrFull),
		say(rest.CodeNotFound, commands.ErrUnknown, meta.ErrUnknown, alerts.ErrUnknown, accounts.ErrUnknown, book.ErrUnknown, registry.ErrNoToken, releases.ErrUnknown),
	} {
		out = append(out, k...)
	}
	return out
}

// Fault finds the field of a plan or a command that an error is about.
func Fault(err error) (rest.Fault, bool) {
	var field *commands.Error
	if errors.As(err, &field) {
		return rest.Fault{Pointer: field.Pointer, Detail: field.Detail}, true
	}
	var wrong *plan.Error
	if !errors.As(err, &wrong) {
		return rest.Fault{}, false
	}
	return rest.Fault{Pointer: wrong.Pointer, Detail: wrong.Detail}, true
}

// Explain puts an error of a part into words for a form; false for a fault of the
// server.
func Explain(err error) (rest.Problem, bool) {
	for _, k := range Known() {
		if errors.Is(err, k.Err) {
			row := k.Code.Row()
			return rest.Problem{Type: k.Code.Type(), Code: string(k.Code), Title: row.Title, Status: row.Status, Detail: err.Error(), Do: row.Do}, true
		}
	}
	return rest.Problem{}, false
}
