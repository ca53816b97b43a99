// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"fulmar/cmd/fulmar/fault"
	"fulmar/tpm"
	"fulmar/tpm/tpmtest"
)

// codeOf finds the code at the end of an error.
func codeOf(errs string) string {
	m := regexp.MustCompile(`\[(FLT\d{4})\]\n`).FindStringSubmatch(errs)
	if m == nil {
		return ""
	}
	return m[1]
}

// TestTable: codes are in order and none is there twice; each row tells all it must.
func TestTable(t *testing.T) {
	t.Parallel()
	last := fault.Code("")
	for _, r := range fault.Table() {
		if r.Code <= last || !regexp.MustCompile(`^FLT\d{4}$`).MatchString(string(r.Code)) {
			t.Errorf("%s follows %s", r.Code, last)
		}
		last = r.Code
		if r.What == "" || r.Why == "" || r.Do == "" || r.Exit == 0 || strings.ContainsAny(r.What+r.Why+r.Do, "|\n") {
			t.Errorf("%+v", r)
		}
	}
	if _, ok := fault.Find("FLT0000"); ok {
		t.Error("there is a code FLT0000")
	}
	if r, ok := fault.Of(fmt.Errorf("a: %w", fault.New(fault.NoBoard, "b: %w", fs.ErrNotExist))); !ok || r.Code != fault.NoBoard {
		t.Errorf("a code that was given: %+v", r)
	}
	if r, ok := fault.Of(fmt.Errorf("%w: %w", tpm.ErrNoTPM, fs.ErrNotExist)); !ok || r.Code != "FLT0401" {
		t.Errorf("the class of the TPM wins over the general one: %+v", r)
	}
	if _, ok := fault.Of(fmt.Errorf("something else")); ok {
		t.Error("any error has a code")
	}
}

// TestEachCodeCanCome: no row is a promise. The codes are brought forth here by
// commands, or in the transcripts of tests/cli, by tests/enrol, package rollout and package command,
// which are looked through.
func TestEachCodeCanCome(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	scripts, err := filepath.Glob("../../../tests/cli/testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, path := range append(scripts, "../../../tests/enrol/enrol_test.go", "../rollout/rollout_test.go", "../command/command_test.go", "../ota/ota_test.go") {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^(?:stderr .*\\\[(FLT\d{4})\\\]\$'|.*(?:must\(|:).*"\[(FLT\d{4})\]\\n".*)$`).FindAllSubmatch(b, -1) {
			seen[string(m[1])+string(m[2])] = true
		}
	}
	seen["FLT0001"] = true // every line of usage.txtar that ends with 2
	for code, args := range map[string]string{
		"FLT0004": "recovery new --out /sys/fulmar", // nobody may make a folder there
		"FLT0401": "tpm info --path /nowhere",
		"FLT0402": "tpm info --path /proc/sys/kernel/ostype",
		"FLT0410": "tpm info --path /dev/null",
	} {
		c, _, errs := run(strings.Fields(args)...)
		if strings.Contains(errs, "read-only file system") && os.Getenv("CI") == "" { // of /sys in some containers
			t.Skip(errs)
		}
		if c != fault.ExitWrong || codeOf(errs) != code {
			t.Errorf("fulmar %s: %d, %s, wants %s", args, c, errs, code)
		}
		seen[code] = true
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	d := deadBoard(t)
	var errs bytes.Buffer
	if c := Run(context.Background(), "dev", []string{"spool", "export", d.dir, "--key", d.key}, full, &errs); c != fault.ExitWrong || codeOf(errs.String()) != "FLT0005" {
		t.Errorf("on a full disk: %d, %s", c, errs.String())
	}
	seen["FLT0005"] = true
	for status, code := range map[int]string{500: "FLT0308", 403: "FLT0304"} {
		if refused(t, status) == code {
			seen[code] = true
		}
	}
	for code := range tpmCodes(t) {
		seen[code] = true
	}
	for code := range boardCodes(t) {
		seen[code] = true
	}
	for _, r := range fault.Table() {
		if r.Code >= fault.FleetFirst { // the fleet's: its API brings them forth, package remote hands them on
			continue
		}
		if !seen[string(r.Code)] {
			t.Errorf("nothing here brings forth %s, %s", r.Code, r.What)
		}
	}
}

// refused asks a server that has an error of its own, without a code that we know.
func refused(t *testing.T, status int) string {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, `{"title":"The disk of the server is full"}`)
	}))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	cert, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte("fk1_x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, out, errs := run("board", "list", "--fleet", s.Listener.Addr().String(), "--ca", cert, "--token-file", token)
	if c != fault.ExitOf(status) || !strings.Contains(errs, "board list: the disk of the server is full [FLT") {
		t.Errorf("%d, %s%s", c, out, errs)
	}
	return codeOf(errs)
}

// tpmCodes lets a TPM answer the wish for a signature with each error that a person can
// do something about, and gives the codes that came.
func tpmCodes(t *testing.T) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	chip := tpmtest.Start(t)
	for code, rc := range map[string]uint32{
		"FLT0403": 0x922, // retry
		"FLT0405": 0x101, // failure
		"FLT0406": 0x98e, // authorization failed
		"FLT0407": 0x921, // lockout
		"FLT0408": 0x14b, // no space in NV
		"FLT0409": 0x09f, // integrity: another's
		"FLT0411": 0,     // the connection is cut
	} {
		p := tpmtest.Between(t, chip)
		p.Answer = func(cmd []byte) ([]byte, bool) {
			if binary.BigEndian.Uint32(cmd[6:]) != 0x15d { // Sign
				return nil, true
			}
			return tpmtest.Code(rc), rc != 0
		}
		c, out, errs := run("tpm", "test", "--path", p.Path())
		if c != fault.ExitWrong || codeOf(errs) != code || !strings.Contains(errs, "\n  do: ") {
			t.Errorf("answer %#x: %d, %s%s, wants %s", rc, c, out, errs, code)
		}
		seen[code] = true
	}
	// A TPM that does not answer is waited for as long as the longest command may take:
	// minutes. That its class has its code must do.
	if r, ok := fault.Of(fmt.Errorf("tpm: sign: %w", tpm.ErrTimeout)); ok {
		seen[string(r.Code)] = true
	}
	return seen
}
