// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package audit is the log of who did what to which board, why and when.
//
// A row is written in the transaction of the act itself ([Append]), so that none
// is done without its row. Each row carries the SHA-256 of itself and the row
// before it: a row that was changed, taken out or put in breaks the chain, which
// [Log.Verify] tells. Whoever may write the file can also make a whole new chain;
// against that its head is signed with a key of the server ([Book]), which may be in a
// TPM, and noted elsewhere; a later verification is asked for that head. An exported
// log is verified without the server: package trust/chain.
package audit
