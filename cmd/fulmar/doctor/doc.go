// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package doctor is `fulmar doctor`: it looks at everything on a board that fulmar needs,
// and says of each thing how it is and what to do. It changes nothing and opens no device.
// The looks are taken side by side and each has a deadline, so that a file that hangs, or a
// program that does, costs its own line and no other.
package doctor
