// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package idem keeps what requests with an Idempotency-Key were answered, in the
// registry's database, so that a request that is sent again after a broken connection
// is answered again and not done again.
//
// The names of callers and their keys are not kept, only a hash of them, nor is an
// answer that holds a secret.
package idem
