// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

// Package scene draws a camera over a sorting line: a moving belt, parcels of
// several kinds, some of them damaged, each with a shipping label that carries a
// lane digit written by hand. It knows what it drew, so whoever looks at its
// pictures can be told how right they are.
//
// It makes the training, calibration and test pictures of the parcels model
// (package parcels), and it is the camera of kind "scene" of the running system.
// Everything is drawn from numbers; no picture of anybody is in it.
package scene
