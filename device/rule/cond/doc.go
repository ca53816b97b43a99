// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package cond is the language in which rules say when: a part of expr-lang's
// (expr-lang.org, v1.17.8), with the same grammar, precedence and meaning. Whatever this
// package takes, expr-lang takes too and answers the same; a test holds it to that.
//
//	thermal.cpu_celsius > 85 and not link.up
//	output["gate-valve"] == 0 or count("dock", "person", 30) >= 3
//	app.mode in ["night", "away"] and time.hour >= 22
//
// It has numbers (64-bit floats), texts, true and false; names of inputs with dots, and
// ["..."] where a part is no identifier; < <= > >= == !=, in and not in a list of
// constants; and or not (&& || !); + - * /; abs, min, max; and two functions of its own:
// count(camera, label, seconds) and known(input).
//
// # What is not known
//
// An input may be unknown: never seen, stale, of a sensor that fails. The answer is then
// unknown too, unless it would be the same whatever that input were: false and unknown is
// false, true or unknown is true (Kleene's strong logic). Only known(input) always has an
// answer. What has no finite result (a division by zero) is unknown, and an error.
//
// # Bounds
//
// An expression comes from outside: its length, its nodes and its depth are bounded. There
// are no loops and no functions of others, so evaluating takes a step for each node, and
// allocates nothing.
package cond
