// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/tpmtest"
)

// The counter keeps its value through a power cut and never goes back.
func TestCounter(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	a := open(t, chip.Path())
	c := must[*tpm.Counter](t)(a.Counter(0x01800010))
	_, err := c.Value()
	wants(t, err, tpm.ErrMissing)
	first := must[uint64](t)(c.Define())
	if v := must[uint64](t)(c.Increment()); v != first+1 {
		t.Errorf("%d after %d", v, first)
	}
	if v := must[uint64](t)(c.Define()); v != first+1 {
		t.Errorf("a second definition gave %d", v)
	}
	chip.Kill()
	if _, err = c.Value(); err == nil {
		t.Error("read from a dead TPM")
	}
	chip.Run(t)
	if v := must[uint64](t)(c.Value()); v != first+1 {
		t.Errorf("%d after a power cut, was %d", v, first+1)
	}
	if _, err = a.Counter(0x01c00002); err == nil {
		t.Error("the maker's range was given out")
	}
}

// tpm2-tools agrees with us on the Name of the storage root key.
func TestPeerName(t *testing.T) {
	t.Parallel()
	tpmtest.Need(t, "tpm2_readpublic")
	chip := tpmtest.Start(t)
	a := open(t, chip.Path())
	name := a.SRKName()
	_ = a.Close()
	out := filepath.Join(t.TempDir(), "name")
	cmd := exec.Command("tpm2_readpublic", "-Q", "-c", "0x81000001", "-n", out)
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+chip.Sock)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(err, strings.TrimSpace(string(text)))
	}
	if b := must[[]byte](t)(os.ReadFile(out)); string(b) != string(name) {
		t.Errorf("%x, we say %x", b, name)
	}
}
