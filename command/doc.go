// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package command is the words of commands: what is signed and given, what a board tells
// of it, which arguments a command takes and who does it. Package command/dispatch does
// them.
//
// A [Command] is signed bytes from the fleet, or comes from a person or a rule on the
// board. A [Report] carries its [Result] to the fleet. A [Kind] describes a command's
// arguments, which travel as a CBOR map; [FromJSON] and [ToJSON] are for those who speak
// JSON.
package command
