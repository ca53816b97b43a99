// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package rule decides on the board: when readings, outputs, detections, the link and the
// time say so, for long enough, commands are given and keys of the twin are set.
//
// # A rule
//
// A rule is off, and fires when its condition has been true for as long as it says: its
// actions are done once, and it is on. It ends when the condition is false, or where it
// has an end condition of its own (hysteresis) when that is true: the actions of else are
// done once, and it is off. While the answer is not known (an input was never seen, is
// stale, or its sensor fails) it does neither: it does not fire, does not end, and time
// that has to be true without a gap begins anew.
//
// A lease bounds how long a rule may hold what it did, in time that the board runs, also
// over restarts: then else is done although the condition still holds, and the rule is
// spent until it has ended.
//
// # Once
//
// What a rule gives is named by the rule's life, its firing and the place in its list
// ([Order].ID), and the engine's state is saved after it was taken. So a firing that was
// taken before a power cut and not saved is given again under the same name, and the
// command journal knows it.
//
// # Parts
//
// [Engine] is the logic: no clock, no goroutines, not safe for concurrent use. [Runner] is
// an engine at work, fed from many goroutines. [Compile] checks a rule, package cond is
// the language of its conditions.
package rule
