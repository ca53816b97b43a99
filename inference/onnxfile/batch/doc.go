// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package batch follows the pictures of a batch through a network: the shape of each
// tensor, and the place of the pictures in it, operator by operator.
package batch
