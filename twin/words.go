// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package twin

import "fulmar/twin/section"

// The words of the sections, for who holds a side.
type (
	Value    = section.Value
	Policy   = section.Policy
	Edit     = section.Edit
	Conflict = section.Conflict
	Source   = section.Source
)

// The policies.
const (
	PolicyFleet = section.PolicyFleet
	PolicyEdge  = section.PolicyEdge
	PolicyMax   = section.PolicyMax
	PolicyMin   = section.PolicyMin
	PolicyHold  = section.PolicyHold
)

// Where a value comes from.
const (
	FromNowhere  = section.FromNowhere
	FromDesired  = section.FromDesired
	FromOverride = section.FromOverride
)

// Errors of a section.
var (
	ErrFull   = section.ErrFull
	ErrForged = section.ErrForged
	ErrBase   = section.ErrBase
)

// ValueOf encodes a Go value: bool, any integer, float, string, []any, map[string]any.
func ValueOf(v any) (Value, error) { return section.ValueOf(v) }

// ParsePolicy reads a policy's word.
func ParsePolicy(s string) (Policy, error) { return section.ParsePolicy(s) }
