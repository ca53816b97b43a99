// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package onnxfile reads and edits ONNX files for engines that want them otherwise
// than they were exported: with the batch left open, or without Q/DQ nodes and with a
// calibration cache beside. It knows the part of the format that this takes; what it
// does not change it passes on byte for byte.
//
// An edit is made only where it can be proven that the edited network computes for
// each picture what the file computed, by following the shape of each tensor and the
// place of the pictures in it from the inputs to the outputs. What cannot be followed
// is refused in one line that names the node.
package onnxfile
