// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package credential_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"fulmar/internal/credential"
)

func TestReadFile(t *testing.T) {
	dir, creds := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "both"), "file")
	write(filepath.Join(creds, "both"), "credential")
	write(filepath.Join(creds, "only"), "credential")
	write(filepath.Join(creds, "blank"), "\n")
	write(filepath.Join(dir, "long"), string(make([]byte, 64<<10+1)))
	t.Setenv("CREDENTIALS_DIRECTORY", creds)
	for name, want := range map[string]string{"both": "file", "only": "credential", "blank": "", "none": "", "long": ""} {
		b, err := credential.ReadFile(filepath.Join(dir, name))
		switch {
		case want == "" && err == nil:
			t.Errorf("%s: read %q", name, b)
		case want != "" && (err != nil || string(b) != want):
			t.Errorf("%s: %q, %v", name, b, err)
		case name == "blank" && !errors.Is(err, fs.ErrNotExist):
			t.Errorf("a blank credential hides why: %v", err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := credential.ReadFile(filepath.Join(dir, "only")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without credentials: %v", err)
	}
}
