// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package engines chooses what a model runs on, and changes it while it runs.
//
// Where TensorRT is and the model's engine lies in the cache (package cache), that
// one runs. Where it does not lie there, ONNX Runtime serves at once and a child
// process builds it (package build); when it is there and finds in the golden
// pictures what it should, it takes the model over between two frames. Where there is
// no TensorRT, or it was refused, ONNX Runtime stays, and the model's status says why.
//
// An engine that was being loaded, or ran for less than a minute, when the process
// died is counted; after three such deaths it is not used again until what it is
// built of or for changes. An error of the device that only a new process gets over
// is passed on as inference.ErrDeviceLost.
//
// A [Chooser] may be used by any goroutine.
package engines
