// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package claims holds the fleet to what it can know: it remembers which numbers
// went out, over all connections of this program, and finds the acknowledgements
// that name others. Such a word frees nothing by itself (only what is in flight is
// ever freed), but somebody's books are wrong, and that must be heard.
//
// A [Book] may be used by several goroutines.
package claims
