// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rule

import "fulmar/device/rule/script"

// Rules as they are written, for who keeps them; see package script.
type (
	Spec    = script.Spec
	Action  = script.Action
	Step    = script.Step
	Set     = script.Set
	Program = script.Program
)

// MaxRules bounds the rules of a board.
const MaxRules = script.MaxRules

// Compile checks a rule; see [script.Compile].
func Compile(s Spec) (*Program, error) { return script.Compile(s) }

// Validate checks rules and ladder of a config; see [script.Validate].
func Validate(rules []Spec, shed []Step) error { return script.Validate(rules, shed) }

// CheckTwin checks a value of the twin's keys rule.NAME and shed; see [script.CheckTwin].
func CheckTwin(key string, value []byte) error { return script.CheckTwin(key, value) }
