// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "runtime"

// arch is how npm names this machine's processor.
func arch() string {
	if runtime.GOARCH == "amd64" {
		return "x64"
	}
	return runtime.GOARCH
}
