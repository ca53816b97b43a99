// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package objects keeps the objects of releases and gives them to boards, piece by piece.
//
// A [Store] is a folder: each object is a file named by the root of its tree, with the
// tree beside it, so that the proof of a piece is a few small reads.
//
// A [Caster] answers what boards want over MQTT. Boards that want the same and hear its
// topic get one pass over it there, all at once; whatever else is missing goes to each
// board on its own, as many pieces as it has given credit for. Boards have turns, piece by
// piece; a board, a site and the fleet have a rate each. Nothing is queued for a board but
// a few pieces in the gateway: one that takes them slowly is asked again later.
//
//	Want -> entitled? -> many, and hears it? -> linger -> pass -> Hold 0 -> Wants of what is missing
//	                  -> else -> its turn -> token buckets -> piece
//
// [Handler] gives the same objects over HTTP, by range, within the same rates.
package objects
