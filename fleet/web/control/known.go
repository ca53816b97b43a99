// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package control

import "strings"

// kind is what the form knows of a command that every board may have: its arguments, those
// that may be left out with a question mark. docs/commands.md has the same, from the code
// of the boards; a test holds one to the other. What users add is not known here.
type kind string

// known gives that of a name, "" for one that is not known.
func known(name string) kind {
	return map[string]kind{
		"read-sensor-batch": "sensors?", "set-valve-position": "valve percent", "set-output": "output value", "trigger-safety-shutdown": "reason?",
		"release-safety-shutdown": "reason?", "run-model": "model for?", "pause-model": "model for?", "set-log-level": "level for?",
		"set-sampling": "group period for?", "snapshot": "camera", "restart": "part", "cancel": "id",
	}[name]
}

// lines are the arguments that are needed, each to be filled in.
func (k kind) lines() string {
	var out []string
	for _, a := range strings.Fields(string(k)) {
		if !strings.HasSuffix(a, "?") {
			out = append(out, a+"=")
		}
	}
	return strings.Join(out, "\n")
}

// words tell which arguments there are.
func (k kind) words() string {
	var out []string
	for _, a := range strings.Fields(string(k)) {
		if name, may := strings.CutSuffix(a, "?"); may {
			a = name + " (may be left out)"
		}
		out = append(out, a)
	}
	return strings.Join(out, ", ")
}
