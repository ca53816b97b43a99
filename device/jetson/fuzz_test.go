// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package jetson

import (
	"strings"
	"testing"

	"fulmar/schema"
)

// FuzzText fuzzes the files of NVIDIA's user space and the device tree's list.
func FuzzText(f *testing.F) {
	for _, s := range []string{
		"< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n", "< POWER_MODEL ID=999 NAME= >\n<>\n< X",
		"pmode:0002", "pmode:2 fmode:quiet", "pmode:-1", "nvidia,p3768\x00nvidia,tegra234\x00", "nvidia,../x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m := ParseModes(s)
		if len(m.Names) > maxModes || m.Default < -1 || m.Default > 255 {
			t.Errorf("%+v", m)
		}
		for id, n := range m.Names {
			if id < 0 || id > 255 || n == "" || strings.ContainsAny(n, " \n") {
				t.Errorf("mode %d %q", id, n)
			}
		}
		if id := parseStatus([]byte(s)); id < -1 || id > 255 {
			t.Errorf("mode %d", id)
		}
		if soc := socOf(s); soc != "" && schema.CheckName(soc) != nil {
			t.Errorf("soc %q", soc)
		}
		_ = jetpackOf(s)
	})
}
