// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package onnxfile

import (
	"fulmar/inference/onnxfile/batch"
	"fulmar/inference/onnxfile/graph"
)

// What a file holds.
type (
	// Model is a parsed file.
	Model = graph.Model
	// Node is one operation.
	Node = graph.Node
	// Tensor is a constant of the file.
	Tensor = graph.Tensor
	// Value is an input or output of the network.
	Value = graph.Value
)

// Float is the type of the elements of pictures; package graph has the others.
const Float = graph.Float

// Errors that callers tell apart; each is wrapped with what is wrong.
var (
	// ErrFile says that the bytes are no ONNX file that is read here.
	ErrFile = graph.ErrFile
	// ErrBatch says that a network cannot be shown to compute several pictures at once
	// as it computes each.
	ErrBatch = batch.ErrBatch
)

// Parse reads a file. The model shares the memory of the bytes.
func Parse(b []byte) (*Model, error) { return graph.Parse(b) }

// Quantized tells whether a file has QuantizeLinear nodes. Bytes that are no ONNX
// file have none.
func Quantized(b []byte) bool { return graph.Quantized(b) }

// OpenBatch makes the first dimension of all inputs and outputs open, under the name
// N, and changes the shapes inside that pin a batch of one. The network then computes
// N pictures as it computed each of them, or the file is refused with the node's name.
func OpenBatch(b []byte) ([]byte, error) { return batch.Open(b) }
