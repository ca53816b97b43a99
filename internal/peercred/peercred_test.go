// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package peercred

import (
	"net"
	"path/filepath"
	"testing"
)

func TestStrangerIsNotAllowed(t *testing.T) {
	t.Parallel()
	if allowed(1000, 1000) != nil || allowed(0, 1000) != nil || allowed(1001, 1000) == nil {
		t.Error("who may call is wrong")
	}
	a, _ := net.Pipe()
	if Check(a) == nil {
		t.Error("a caller without a user was let in")
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := Check(c); err != nil {
		t.Errorf("we ourselves: %v", err)
	}
}
