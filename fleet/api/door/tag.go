// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package door

import (
	"net/http"
	"strconv"
	"strings"

	"fulmar/schema/rest"
)

// Tag gives the ETag of a thing with a version.
func Tag(version int64) string { return `"v` + strconv.FormatInt(version, 10) + `"` }

func parseTag(s string) (int64, bool) {
	inner, ok := strings.CutPrefix(s, `"v`)
	if !ok {
		return 0, false
	}
	if inner, ok = strings.CutSuffix(inner, `"`); !ok {
		return 0, false
	}
	v, err := strconv.ParseInt(inner, 10, 64)
	return v, err == nil && v >= 0 && Tag(v) == s
}

// Stale is the error of a change to a thing that has another version by now.
func Stale(now int64) *Error {
	return &Error{Code: rest.CodeStale, Header: http.Header{"Etag": {Tag(now)}}}
}

// Same tells that the caller has the newest already: 304.
type Same struct{ Tag string }

// Error implements error.
func (s Same) Error() string { return "not modified" }

// GetStatus implements [huma.StatusError].
func (s Same) GetStatus() int { return http.StatusNotModified }

// GetHeaders implements [huma.HeadersError].
func (s Same) GetHeaders() http.Header {
	return http.Header{"Etag": {s.Tag}, "Cache-Control": {"no-cache"}}
}

// Holds tells whether an If-None-Match names the tag, weakly compared (RFC 9110 13.1.2).
func Holds(ifNoneMatch, tag string) bool {
	weak := func(s string) string { return strings.TrimPrefix(strings.TrimSpace(s), "W/") }
	for t := range strings.SplitSeq(ifNoneMatch, ",") {
		if strings.TrimSpace(t) == "*" || weak(t) == weak(tag) {
			return true
		}
	}
	return false
}

// Would is the answer to a dry run: what would have been done.
type Would string

// Error implements error.
func (w Would) Error() string { return string(w) }

// GetStatus implements [huma.StatusError].
func (w Would) GetStatus() int { return http.StatusOK }
