// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package update brings updates to one board: it joins the machine of package ota to the
// board's link, keys, floor, installers and health, and to the people before it.
//
//	fleet    ota/d -> intake: proven, the newest -> ota.Updater -> words -> ota/s, and a report of
//	                  each step in the spool, so that the fleet's history has no holes
//	stick    local socket -> bundles: proven as it streams -> ota.Updater
//	Updater  asks admit whether it may, gate whether what is on trial works, floor what may not
//	         be installed any more; patches are applied by a child (patch)
//
// Nothing here is waited for by anything else of the board.
package update
