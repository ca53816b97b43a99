// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package releases runs the commands of docs/releases.md as they are written, with the real
// commands and the folder of a real fleet.
package releases
