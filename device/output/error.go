// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package output

import "fmt"

// Error is a refusal or failure with a word for programs. Text is for people: what
// happened to which output, and what to do.
type Error struct {
	Code string
	Text string
}

func (e *Error) Error() string { return e.Text }

// The codes.
const (
	CodeUnknown    = "unknown-output"
	CodeRange      = "out-of-range"
	CodeFast       = "too-fast"
	CodeInterlock  = "interlocked"
	CodeShutdown   = "safety-shutdown"
	CodeFailed     = "output-failed"   // what it does now is not known
	CodeBusy       = "output-busy"     // nothing was done
	CodePerson     = "wants-a-person"  // a release by what is no person
	CodeNotDurable = "not-on-disk-yet" // it is so in memory, and would be lost with it
)

func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}
