// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package enginetest_test

import (
	"testing"

	"fulmar/inference/enginetest"
	"fulmar/inference/model"
	"fulmar/inference/ort"
)

// The suite itself, over ONNX Runtime with one picture after the other.
func TestBatched(t *testing.T) {
	r, err := ort.Open(enginetest.Library(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 5} {
		enginetest.RunBatch(t, func(network []byte) (model.Engine, error) {
			s, err := r.NewSession(network, ort.Options{})
			if err != nil {
				return nil, err
			}
			return enginetest.Batched(s, n)
		})
	}
}
