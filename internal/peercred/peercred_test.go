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
	for _, c := range []struct {
		peer  int
		users []int
		ok    bool
	}{
		{1000, []int{1000}, true},
		{0, []int{1000}, true},
		{1001, []int{1000}, false},
		{1001, []int{1000, 1001}, true},
		{65534, []int{1000, 1001}, false}, // who has no number in our user namespace
	} {
		if err := allowed(c.peer, c.users); (err == nil) != c.ok {
			t.Errorf("user %d where %v may: %v", c.peer, c.users, err)
		}
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
