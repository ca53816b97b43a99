// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"fulmar/tpm"
	"fulmar/tpm/floor"
	"fulmar/tpm/tpmtest"
)

func holds(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

func TestTPMInfo(t *testing.T) {
	t.Parallel()
	chip, _, _ := tpmtest.Made(t)
	code, out, errs := run("tpm", "info", "--path", chip.Path())
	if code != exitGood || errs != "" {
		t.Fatal(code, out, errs)
	}
	holds(t, out, "virtual, maker IBM, model SW TPM", "made just now", "a chain of 1", "not measured", "bound:", "go back with the file", "can erase it")
	code, out, errs = run("tpm", "info", "--json", "--path", chip.Path())
	var r struct {
		Kind, Maker, Attestation, Rollback string
		Certs                              []string `json:"ek_certificates"`
		SRK                                string   `json:"srk_name"`
		Made                               bool     `json:"srk_made"`
		EK                                 string   `json:"ek_sha256"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitGood {
		t.Fatal(code, out, errs, err)
	}
	if r.Kind != tpm.Virtual || r.Maker != "IBM" || r.Attestation != "bound" || r.Rollback != tpm.RollbackNo || len(r.Certs) != 2 || len(r.SRK) != 68 || r.Made || len(r.EK) != 64 {
		t.Errorf("%+v", r)
	}
	_, bare, _ := run("tpm", "info", "--path", tpmtest.Start(t).Path())
	holds(t, bare, "none that fits")
}

// The test leaves nothing: no object, no key but the storage root key, no counter.
func TestTPMTest(t *testing.T) {
	t.Parallel()
	chip := tpmtest.Start(t)
	code, out, errs := run("tpm", "test", "--path", chip.Path())
	if code != exitGood || errs != "" {
		t.Fatal(code, out, errs)
	}
	holds(t, out, "create a key", "sign", "quote", "seal 32 bytes", "unseal", "there is none yet", "all is well", "was made just now, and stays")
	if n := chip.Loaded(t); n != 0 {
		t.Errorf("%d objects stay loaded", n)
	}
	a, err := tpm.Open(tpm.Config{Path: chip.Path()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Counter(floor.Index)
	if err == nil {
		_, err = c.Define()
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	_, out, _ = run("tpm", "test", "--path", chip.Path())
	holds(t, out, "it is at 1")
	if strings.Contains(out, "made just now") {
		t.Error("the storage root key was made again")
	}
}

// One thing that fails is told with the others' success, with what to do, and exit 1.
func TestTPMTestFails(t *testing.T) {
	t.Parallel()
	p := tpmtest.Between(t, tpmtest.Start(t))
	p.Answer = func(cmd []byte) ([]byte, bool) {
		if binary.BigEndian.Uint32(cmd[6:]) == 0x15d { // Sign
			return tpmtest.Code(0x101), true
		}
		return nil, true
	}
	code, out, errs := run("tpm", "test", "--path", p.Path())
	if code != exitWrong {
		t.Error("exit code", code)
	}
	holds(t, out, "FAILED: tpm: sign", "unseal")
	holds(t, errs, "1 of 11 steps failed", "failure mode", "do: power the board off")
	p2 := tpmtest.Between(t, tpmtest.Start(t))
	p2.Change = func(cmd, rsp []byte) []byte {
		if binary.BigEndian.Uint32(cmd[6:]) == 0x15e { // Unseal, with other bytes: the session's MAC is wrong
			rsp = bytes.Clone(rsp)
			rsp[20] ^= 1
		}
		return rsp
	}
	if code, out, _ = run("tpm", "test", "--path", p2.Path()); code != exitWrong || !strings.Contains(out, "unseal") {
		t.Error(code, out)
	}
}

func TestTPMMisuse(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "tpmrm0")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitWrong, "do: is it switched on", []string{"tpm", "info", "--path", none}},
		{exitWrong, "do: is it switched on", []string{"tpm", "test", "--path", none}},
		{exitWrong, "do: run as root", []string{"tpm", "info", "--path", "/proc/sys/kernel/ostype"}},
		{exitWrong, "do: is there a TPM 2.0", []string{"tpm", "info", "--path", "/dev/null"}},
		{exitUsage, "usage", []string{"tpm"}},
		{exitUsage, "usage", []string{"tpm", "clear"}},
		{exitUsage, "takes no", []string{"tpm", "info", "x"}},
		{exitUsage, "unknown flag", []string{"tpm", "test", "--json"}},
	} {
		if code, out, errs := run(c.args...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%v: %d, %s%s", c.args, code, out, errs)
		}
	}
}
