// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package bus brings commands to a TPM and answers back: through the kernel's device or
// a software TPM's socket, one at a time, each with a deadline, repeated only when the
// TPM says that it did not begin. What the bytes mean is package tpm's matter.
package bus
