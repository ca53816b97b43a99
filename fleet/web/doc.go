// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package web is the page: server-rendered HTML, one small live script, charts.
//
// # One model, three users
//
// Each view is built into a page by one function from one [Overview]. The page
// holds its live texts by key (values) and a fingerprint of each piece whose shape
// may change (parts). The template writes both into the HTML; the live stream
// sends what changed of the same two maps; the script puts texts in place and asks
// for a piece again when its fingerprint moved. So the server is the only one that
// renders, and what is live can never disagree with what was served.
//
// # Safety
//
// The content security policy allows nothing inline and no sink for strings
// (Trusted Types, no policy), forms are refused across origins, everything but the
// log-in and its assets needs a session, and no secret is ever part of a URL.
// Boxes are drawn over the picture by the page; the picture is never touched.
//
// # Without script
//
// Every view is complete without the script: forms are forms, charts are drawn by
// the server, ages are written as text. The script only keeps it fresh.
package web
