// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package model reads model packages and runs their networks on pictures.
//
// A model package is a folder with a model.yaml, the network as one ONNX file for
// each variant, a card, and golden pictures with the boxes that belong to them:
//
//	name: parcels
//	version: "1"
//	task: detect
//	input:
//	  name: images
//	  shape: [1, 3, 416, 416]
//	  layout: nchw            # or nhwc
//	  dtype: float32
//	  color: bgr              # or rgb
//	  scale: 1                # value = (v*scale - mean)/std, v from 0 to 255
//	  mean: [0, 0, 0]         # in the input's own colour order
//	  std: [1, 1, 1]
//	  resize: {mode: letterbox, filter: bilinear, anchor: top-left, pad: 114}
//	head: {family: yolox, strides: [8, 16, 32]}
//	labels: [parcel]
//	label_offset: 0
//	thresholds: {score: 0.3, nms_iou: 0.45, max_detections: 100}
//	variants:
//	  - {name: int8, file: parcels-int8.onnx, precision: int8, sha256: ...}
//	golden:
//	  - {image: golden/0.png, expected: golden/0.json}
//	gate:                     # may be left out
//	  pictures: gate/         # NAME.jpg with its truth in NAME.json
//	  metric: map50
//	  card: {int8: 0.93}      # measured on these pictures, by precision
//	  max_drop: 0.02
//	card: CARD.md
//
// Modes are letterbox and stretch, anchors top-left and center, families those of
// package detect; the filter is bilinear between pixel centres without antialias.
// The first variant is the one taken when none is asked for. A file of expected
// boxes is {"boxes": [{"class": 0, "score": 0.9, "box": [x0, y0, x1, y1]}]}, corners
// in pixels of the picture.
//
// Wrong preprocessing costs accuracy in silence, so nothing of it is guessed: an
// unknown key is an error, each file's SHA-256 is checked, and a model whose golden
// pictures do not give their boxes is refused with a sentence that says how far off
// it is.
//
// An engine built on the board is judged by [Detector.Gate] before it is used: on the
// labelled pictures it has to be as good as the card says, less max_drop.
//
// A [Detector] belongs to one goroutine at a time.
package model
