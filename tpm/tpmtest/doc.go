// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package tpmtest runs a software TPM (swtpm) of its own for each test, and puts
// itself between a test and that TPM.
package tpmtest
