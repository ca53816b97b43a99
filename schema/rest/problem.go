// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

// Problem is an error of the API, as RFC 9457 has it (application/problem+json). It
// never repeats what the request held: that may have been a secret.
type Problem struct {
	Type   string `json:"type"`             // urn:fulmar:problem:CODE
	Code   string `json:"code"`             // FLT1401: a row of [Codes]
	Title  string `json:"title"`            // what happened
	Status int    `json:"status"`           // of HTTP
	Detail string `json:"detail,omitempty"` // to what, and because of what
	Do     string `json:"do,omitempty"`     // what to do about it
	// Request is the id of the request, as the server's log has it.
	Request string  `json:"request_id,omitempty"`
	Errors  []Fault `json:"errors,omitempty"` // of single fields
}

// Fault is what is wrong with one field of a request.
type Fault struct {
	Pointer string `json:"pointer"` // JSON pointer into the body, or the parameter's name
	Detail  string `json:"detail"`
}

// List is one page of a collection. Next is the page_token of the page that follows,
// "" on the last one; Total is given where count=true asked for it.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
	Total *int   `json:"total,omitempty"`
}
