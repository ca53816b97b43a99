// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm

import "testing"

// The kinds by makers and drivers as the kernel's sources and the TCG's registry name
// them; the Jetson's secure world and a virtual machine have the same maker.
func TestKind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ maker, model, driver, want string }{
		{"IBM", "SW TPM", "", Virtual},
		{"IBM", "SW TPM", "tpm_tis", Virtual},
		{"MSFT", "xCG fTPM", "optee-ftpm", Firmware},
		{"MSFT", "xCG fTPM", "ftpm-tee", Firmware},
		{"MSFT", "xCG fTPM", "tpm_crb", Unknown},
		{"INTC", "Intel", "tpm_crb", Firmware},
		{"IFX", "SLB9670", "tpm_tis_spi", Discrete},
		{"IFX", "SLB9672", "", Discrete},
		{"XYZ", "", "tpm_tis_spi", Discrete},
		{"XYZ", "", "virtual", Virtual},
		{"XYZ", "", "", Unknown},
	} {
		if got := kind(c.maker, c.model, c.driver); got != c.want {
			t.Errorf("%v: %s", c, got)
		}
	}
	if s := letters(0x49424d00, 0x0a1b2020, 0x58ff2059); s != "IBM X Y" {
		t.Errorf("%q", s)
	}
}
