// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"net/http"

	"fulmar/schema/rest"
)

// FleetFirst is the first code that is of a fleet's API, not of the command line.
const FleetFirst Code = "FLT1000"

// fleetRows are the errors that a fleet's API answers with: its own table, with exit codes.
func fleetRows() (rows []Row) {
	for _, c := range rest.Codes() {
		rows = append(rows, Row{Code: Code(c.Code), What: lower(c.Title), Why: c.Why, Do: c.Do, Told: true, Exit: ExitOf(c.Status)})
	}
	return rows
}

// lower turns the first letter of a title small where it begins a word of small letters.
func lower(s string) string {
	if len(s) > 1 && (s[1] == ' ' || s[1] >= 'a' && s[1] <= 'z') && s[0] >= 'A' && s[0] <= 'Z' {
		return string(s[0]|0x20) + s[1:]
	}
	return s
}

// ExitOf is how a command ends whose request was answered with a status of HTTP.
func ExitOf(status int) int {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ExitDenied
	case http.StatusNotFound, http.StatusGone:
		return ExitNone
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return ExitConflict
	}
	return ExitWrong
}
