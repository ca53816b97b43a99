// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package bring gets the files of a component whole onto a board: for each file the shortest
// encoding whose base the board has, and where that does not give the file, the next one,
// down to the file as it is. Whatever the way, the file's SHA-256 in the manifest decides.
//
// Each way is tried once in a call, so it ends. What is whole stays over restarts and is not
// fetched again; what is not needed any more is removed as soon as that is known.
package bring
