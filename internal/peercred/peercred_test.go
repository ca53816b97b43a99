// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package peercred

import (
	"net"
	"os"
	"path/filepath"
	"slices"
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

// TestOf: the kernel tells user and groups of the other side as they are in this process.
func TestOf(t *testing.T) {
	t.Parallel()
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
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	want, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for side, conn := range map[string]net.Conn{"who listens": there, "who calls": c} {
		p, err := Of(conn)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(p.Groups)
		slices.Sort(want)
		if p.UID != os.Geteuid() || p.GID != os.Getegid() || p.PID != os.Getpid() || !slices.Equal(p.Groups, want) {
			t.Errorf("%s sees %+v, this process is in the groups %v", side, p, want)
		}
	}
}
