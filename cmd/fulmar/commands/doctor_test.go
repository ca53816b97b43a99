// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What fulmar-infer says and how it ends is passed on, whatever it is.
func TestDoctorPassesOn(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if code, out, errs := run("doctor"); code != 1 || out != "" || !strings.Contains(errs, "nor in PATH") {
		t.Errorf("without fulmar-infer: exit code %d, %q, %q", code, out, errs)
	}
	script := "#!/bin/sh\necho \"found $*\"\necho trouble >&2\nexit $FULMAR_TEST_EXIT\n"
	if err := os.WriteFile(filepath.Join(dir, inferName), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0", "1", "2"} {
		t.Setenv("FULMAR_TEST_EXIT", want)
		code, out, errs := run("doctor", "--json")
		if code != int(want[0]-'0') || out != "found doctor --json\n" || errs != "trouble\n" {
			t.Errorf("it ended with %s: exit code %d, %q, %q", want, code, out, errs)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, inferName), []byte("#!/bin/sh\nkill -9 $$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run("doctor"); code != 1 || !strings.Contains(errs, "killed") {
		t.Errorf("a killed one: exit code %d, %q", code, errs)
	}
}
