// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package schema

// bootTime is not told by other kernels: their Mono stands still in a suspend.
func bootTime() (int64, bool) { return 0, false }
