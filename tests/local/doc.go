// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package local runs the real programs on loopback: one fleet server and boards
// beside it, each with its own folder. `make run` shows them to a person; the
// end-to-end tests kill them. Nothing here is in a product binary.
package local
