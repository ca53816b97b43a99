// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"fulmar/internal/disk"
	"fulmar/ota/install/rootfs"
	"fulmar/ota/install/rootfs/nvidia"
)

func TestWords(t *testing.T) {
	t.Parallel()
	b := &nvidia.Board{Root: t.TempDir(), State: t.TempDir(), Disk: disk.OS{}}
	for _, c := range []struct {
		args      string
		in        string
		code      int
		out, said string
	}{
		{"", "", 2, "", "usage:"},
		{"status --xml", "", 2, "", "usage:"},
		{"reboot", "", 2, "", "usage:"},
		{"version", "", 0, "fulmar-rootfs dev", ""},
		{"status", "", 1, "", "nvbootctrl"},
		{"boot", "", 1, "", "nvbootctrl"},
		// What a call says is answered, whatever is wrong; systemd sees no failed unit.
		{"serve", "{\"v\":1,\"verb\":\"status\"}\n", 0, `{"error":"/usr/sbin/nvbootctrl`, "nvbootctrl"},
		{"serve", "{\"v\":2,\"verb\":\"status\"}\n", 0, `"error":"request of version 2`, "version 2"},
		{"serve", "rm -rf /\n", 0, `"error":"request: not JSON"`, ""},
		{"serve", "", 0, `"error":"request: EOF"`, ""},
		{"serve", "{\"v\":1,\"verb\":\"write\",\"token\":\"../../etc\"}\n", 0, "is no token", ""},
		{"serve", strings.Repeat(" ", 9000) + "\n", 0, "over 8192 bytes", ""},
	} {
		var out, said bytes.Buffer
		code := run(t.Context(), b, strings.Fields(c.args), strings.NewReader(c.in), &out, &said)
		if code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(said.String(), c.said) {
			t.Errorf("%q %.60q: %d\n%s\n%s", c.args, c.in, code, &out, &said)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	s := &rootfs.Status{Current: "B", Active: "A", Trial: "2-x", Boots: 2, Slots: []rootfs.Slot{
		{Name: "A", Retry: 3, Status: "normal", Device: "/dev/p1", Version: "1.0"}, {Name: "B", Retry: 3, Status: "normal", Device: "/dev/p2", Token: "2-x"},
	}, Obstacles: []string{"a capsule waits"}}
	want := `slot A: 1.0, normal, 3 tries left, /dev/p1, boots next
slot B: version not known, normal, 3 tries left, /dev/p2, runs by the firmware's word, and / is not on its partition, on trial, boot 2 of 3
an update is hindered:
  a capsule waits`
	if got := table(s); got != want {
		t.Errorf("%s", got)
	}
}
