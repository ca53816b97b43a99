// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	t.Parallel()
	var tail Tail
	line := strings.Repeat("x", 99) + "\n"
	for n := range 3000 {
		if _, err := io.WriteString(&tail, line); err != nil {
			t.Fatal(err)
		}
		b := tail.Bytes()
		if len(b) > tailSize || len(b)%100 != 0 || n > 1000 && len(b) < tailSize/3 {
			t.Fatalf("%d bytes after %d lines", len(b), n)
		}
	}
	if _, err := tail.Write(bytes.Repeat([]byte("y"), 2*tailSize)); err != nil || len(tail.Bytes()) > tailSize {
		t.Errorf("%d bytes, %v", len(tail.Bytes()), err)
	}
}
