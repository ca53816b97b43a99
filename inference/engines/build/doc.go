// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package build builds engines in a process of their own: TensorRT takes minutes and
// gigabytes for it, keeps part of them, and may crash.
//
// [Make] is the child's side: it builds, lets the golden pictures judge, measures and
// puts the engine into the cache. [Children] is the worker's side: it starts the
// child, or asks for a unit over the socket of builds ([Request]), one at a time, takes what it says ([Line]), ends one that is silent for too
// long, and tries again what may go better then. One build runs on a board at a time,
// also one started by hand: a lock in the cache's folder sees to it.
//
// [Humble] makes the child low in priority, bounded in memory, and the first to go
// when the board runs out of it.
package build
