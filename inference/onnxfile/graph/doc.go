// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package graph reads the part of an ONNX file that edits of it take, and writes the
// file again with some of its nodes and tensors changed.
package graph
