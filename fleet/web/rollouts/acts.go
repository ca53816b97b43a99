// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"slices"

	"fulmar/fleet/access"
	"fulmar/fleet/web/form"
	"fulmar/schema/rest"
)

// acts are what a person can do to a rollout now: the safe ones first.
type acts struct {
	List []act
	Note string // why there is not more
	Form *form.Form
}

// act is one button and what has to be known before it is pressed.
type act struct {
	Do, Label, Means string
	Safe             bool   // one press is enough; others are folded
	Tone             string // class of the button
	Queries, Scope   bool   // fields of retry and of rollback
	Open             bool   // unfolded, for its form was refused
}

// order of the buttons: what stops or takes back comes before what goes on.
func actOrder() []string {
	return []string{rest.RolloutPause, rest.RolloutRollback, rest.RolloutAbort, rest.RolloutApprove, rest.RolloutStart, rest.RolloutRetry, rest.RolloutResume}
}

// newActs gives what by may do to r; f holds what was refused, nil nothing.
func newActs(r *rest.Rollout, by access.Caller, f *form.Form) *acts {
	a := &acts{Form: f}
	if f == nil {
		a.Form = form.New("scope", "wave")
	}
	write, approve := by.May(rest.RolloutsWrite) == nil, by.May(rest.RolloutsApprove) == nil
	for _, do := range actOrder() {
		if !slices.Contains(r.Actions, do) {
			continue
		}
		switch {
		case do == rest.RolloutApprove && approve && (by.Author == r.Author || by.Author == r.Starter):
			a.Note = "A second person has to approve it. Not you: you planned or started it."
		case do == rest.RolloutApprove && !approve, do != rest.RolloutApprove && !write:
			a.Note = "You look on: a releaser or an admin can act here."
		default:
			one := newAct(r, do)
			one.Open = f != nil && f.Raw("do") == do
			a.List = append(a.List, one)
		}
	}
	return a
}

func newAct(r *rest.Rollout, do string) act {
	second := ""
	if r.Spec.Approval { // whoever starts it or tries it again cannot be the one who approves
		second = " A second person has to approve it before a board is touched."
	}
	switch do {
	case rest.RolloutPause:
		return act{Do: do, Label: "Pause", Means: "No further board begins. What has begun ends.", Safe: true, Tone: "act"}
	case rest.RolloutRollback:
		return act{Do: do, Label: "Take it back", Means: "Boards that have the release go back to what they ran before. Each confirms that.", Tone: "act danger", Scope: !r.Over}
	case rest.RolloutAbort:
		if r.State == planned {
			return act{Do: do, Label: "Drop the plan", Means: "Nothing has been changed, and nothing will be.", Tone: "act"}
		}
		return act{Do: do, Label: "Abort", Means: "It ends here. Boards that have the release keep it, those that failed go back, no other gets it.", Tone: "act danger"}
	case rest.RolloutApprove:
		return act{Do: do, Label: "Approve", Means: r.Author + " planned it. With your yes it begins.", Tone: "go"}
	case rest.RolloutStart:
		if second != "" {
			return act{Do: do, Label: "Ask for approval", Means: "It begins as soon as a second person has approved it.", Safe: true, Tone: "go"}
		}
		return act{Do: do, Label: "Start it", Means: "The first wave begins.", Safe: true, Tone: "go"}
	case rest.RolloutRetry:
		return act{Do: do, Label: "Try again", Means: "The same plan once more, with the boards that you name or without them." + second, Tone: "act danger", Queries: true}
	}
	one := act{Do: do, Label: "Go on", Means: "It goes on from where it stands.", Tone: "act"}
	if r.State == held {
		one.Means, one.Tone = "It goes on although the gate does not say yes. The next wave is larger.", "act danger"
	}
	return one
}
