// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package chip is the board's TPM as the agent uses it: opened when it is first
// needed and again after a failure, used by one caller at a time, and never waited
// for longer than asked. A TPM that hangs costs each caller its limit and the agent
// one goroutine.
//
// The Name of the storage root key is pinned in a file once the board has keys under
// it, so that secrets go only to the TPM that made them. With another storage root key
// the board has another TPM, or its own was cleared; see [Chip.Open] for what is done.
package chip
