// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package bus

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDriver(t *testing.T) {
	t.Parallel()
	sys := t.TempDir()
	for _, d := range []string{"devices/spi/tpm/tpm0", "bus/spi/drivers/tpm_tis_spi", "class/tpm", "devices/virtual/tpm/tpm1"} {
		if err := os.MkdirAll(filepath.Join(sys, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for to, at := range map[string]string{
		"devices/spi/tpm/tpm0":        "class/tpm/tpm0",
		"devices/spi":                 "devices/spi/tpm/tpm0/device",
		"bus/spi/drivers/tpm_tis_spi": "devices/spi/driver",
		"devices/virtual/tpm/tpm1":    "class/tpm/tpm1",
	} {
		if err := os.Symlink(filepath.Join(sys, to), filepath.Join(sys, at)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"/dev/tpmrm0": "tpm_tis_spi", "/dev/tpm0": "tpm_tis_spi", "/dev/tpm1": "virtual", "/dev/tpm2": "", "unix:/tmp/tpm0": "", "/dev/null": "",
	} {
		if got := driver(sys, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
