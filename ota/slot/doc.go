// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package slot keeps the versions of a board's programs side by side and says which
// one runs. A power cut at any moment leaves the old choice or the new one.
//
//	DIR/slots/ID/{fulmard,...,slot.json}   one version, never changed after it is there
//	DIR/current -> slots/ID                what readers follow; an effect of the state
//	DIR/launch.json                        the state: which slot, on trial or confirmed, tries
//
// A slot that was switched to is on trial. The launcher counts its starts
// ([Store.Begin]) before it runs it; the agent confirms it after real progress
// ([Store.Confirm]); [MaxTries] starts without that, or a program that cannot be run,
// and the choice goes back to the slot before ([Store.Back]).
//
// launch.json and slot.json are read by launchers and agents of other versions: fields
// are only ever added, readers pass over those they do not know.
package slot
