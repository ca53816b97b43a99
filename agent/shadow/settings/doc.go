// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package settings says which keys of a twin configure the board, what each may be set to,
// and puts them over the config of the board's file. It does no input or output.
//
// A key is set over the config; a config file that no longer has the camera, model or
// group that a key names leaves the key without effect, and says so.
package settings
