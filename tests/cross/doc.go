// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package cross tries the scripts that build the programs for boards: the version, the
// sysroot, and that two folders give the same bytes. It has no code of its own.
package cross
