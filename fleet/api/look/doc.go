// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package look is the reading half of the API: boards and lists of them, their series,
// detections, pictures and ledgers, and what a query means.
//
// Every answer is made of one look at the fleet (web.Overview), which is never changed,
// and of what the caller may see: a token that is limited to some boards is answered as
// if there were no others. The only state is that of ordered listings that somebody
// pages through, of which 16 are kept for ten minutes.
package look
