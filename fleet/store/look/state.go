// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package look

import (
	"fmt"
	"strings"
	"time"

	"fulmar/fleet/web"
	"fulmar/schema"
)

const (
	// silentAfter is how long a connected board may say nothing; a board with a
	// slower pace gets three of its own periods.
	silentAfter   = 30 * time.Second
	silentPeriods = 3
	// namedSensors is how many sensors a cause names; the others are counted.
	namedSensors = 3
)

// What the fleet itself reports about a board, beside what the board does.
const (
	SubjectVersion    = "fleet/version"    // it speaks a newer wire version: nothing of it is taken
	SubjectUnreadable = "fleet/unreadable" // what it sent in this connection could not be read
)

// verdict gives the board its one state and the primary cause. The order is fixed:
// who speaks a newer version
// than this program, who was never heard of, who is two, who cannot be reached, whose proof
// is not believed, then what the board says of itself, worst first, then what its sensors show.
func (r *row) verdict(now time.Time, e *Enrolled) (web.State, string, time.Time) {
	twins, since := e.Trust.Twins()
	away, gone := e.Trust.Away(now)
	switch {
	case e.Revoked:
		return web.StateUnreachable, "shut out: its certificate was revoked", r.LastSeen
	case r.newer() != "":
		return web.StateFailing, r.newer(), When(r.reportSince[SubjectVersion])
	case r.LastSeen.IsZero():
		return web.StateNeverHeard, "enrolled, but has not connected yet", e.At
	case twins != "":
		return web.StateFailing, twins, since
	case !r.Online && away != "":
		return web.StateUnreachable, away, gone
	case !r.Online && e.Name == "": // forgotten, or of somebody else's broker
		return web.StateUnreachable, "connection lost, and it is not enrolled here", later(When(r.onlineSince), r.LastSeen)
	case !r.Online:
		return web.StateUnreachable, "connection lost", later(When(r.onlineSince), r.LastSeen)
	}
	silent := max(silentAfter, silentPeriods*time.Duration(r.period)*time.Millisecond)
	if gone := now.Sub(r.LastSeen); gone > silent {
		return web.StateUnreachable, "connected, but sends nothing", r.LastSeen
	}
	state, proof, since := e.Trust.Here()
	if state == web.StateFailing {
		return state, proof, since
	}
	for _, want := range []struct {
		severity schema.Severity
		state    web.State
	}{{schema.SeverityAlarm, web.StateFailing}, {schema.SeverityWarn, web.StateDegraded}} {
		for _, rep := range r.Reports {
			if rep.Severity == want.severity {
				return want.state, said(rep.Subject, firstOf(rep.Text, rep.State)), When(r.reportSince[rep.Subject])
			}
		}
	}
	if proof != "" {
		return state, proof, since
	}
	if cause, since := r.badSensors(); cause != "" {
		return web.StateDegraded, cause, since
	}
	return web.StateHealthy, "", When(r.onlineSince)
}

// said is a report in words, with what it is about: "spool: the disk is full". A text that
// names that itself is enough: "camera gate: no frame for 30 s" of camera/gate.
func said(subject, text string) string {
	if rest, ok := strings.CutPrefix(text, strings.ReplaceAll(subject, "/", " ")); ok && (rest == "" || strings.ContainsAny(rest[:1], " :")) {
		return text
	}
	return subject + ": " + text
}

// newer gives the fleet's word that the board speaks a newer version. Such a board is
// told to stay away, so it comes before all that a lost connection would say.
func (r *row) newer() string {
	for _, rep := range r.Reports {
		if rep.Subject == SubjectVersion && rep.Severity == schema.SeverityAlarm {
			return rep.Text
		}
	}
	return ""
}

// badSensors names the sensors that should give a value and do not. Offline is not
// among them: boards power zones down on purpose, and a healthy Jetson always has
// some (DESIGN: a powered-down zone is no fault).
func (r *row) badSensors() (cause string, since time.Time) {
	var names []string
	for _, x := range r.Latest {
		if x.Quality == schema.QualityStale || x.Quality == schema.QualityError {
			names = append(names, x.Series+" ("+x.Quality.String()+")")
			since = later(since, x.At)
		}
	}
	if len(names) == 0 {
		return "", since
	}
	word := "sensors give"
	if len(names) == 1 {
		word = "sensor gives"
	}
	cause = fmt.Sprintf("%d %s no good value: %s", len(names), word, strings.Join(names[:min(len(names), namedSensors)], ", "))
	if more := len(names) - namedSensors; more > 0 {
		cause += fmt.Sprintf(" and %d more", more)
	}
	return cause, since
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
